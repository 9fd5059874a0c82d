"""Laws of encoders: sound ones keep them, and each small defect is found by the law that is meant for it."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import losskit
from losskit.errors import DataError
from losskit.output import Output
from losskit.testing import Subject, ToyEncoder, check, laws, subjects, tiny
from losskit.testing.encoding import ready
from losskit.testing.tiny import options_for, tiny_folder

IDS = [law.id for law in laws("encoder") if law.id.startswith("encode")]
FAMILIES = ["dense", "sparse", "multi-vector", "cross-encoder"]
REGISTERED = [spec.name for spec in losskit.find(kind="encoder", provider="losskit")]


def made_of(cls, family="dense", **options):
    return Subject(partial(cls, family, **{"seed": 0, **options}), kind="encoder", component=cls)


def found_by(law, subject):
    (found,) = check(subject, only=[law])
    return found


# Sound ones


@pytest.mark.parametrize("name", REGISTERED)
def test_built_in_encoders_keep_them(name):
    cls = losskit.get("encoder", name).load()
    (subject,) = subjects(partial(cls, **options_for(cls)), kind="encoder", component=cls)
    found = {each.id: each for each in check(subject, only=IDS)}
    assert {each.status for each in found.values()} <= {"passed", "not_applicable"}, [
        each for each in found.values() if not each.fine
    ]
    left_out = {each.id for each in found.values() if each.status == "not_applicable"}
    assert left_out == ({"encoder-padding"} if name in ("mlp", "static") else set())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_toys_keep_them(family, dropout):
    assert {each.status for each in check(made_of(ToyEncoder, family, dropout=dropout), only=IDS)} == {"passed"}


def test_a_cross_encoder_of_several_classes_keeps_them():
    cls = losskit.get("encoder", "cross-encoder").load()
    subject = Subject(partial(cls, **options_for(cls), num_labels=3), kind="encoder", component=cls)
    assert {each.status for each in check(subject, only=IDS)} == {"passed"}


class BatchNormed(ToyEncoder):
    """Gradient caching refuses it by name in training."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.norm = nn.BatchNorm1d(self.dimension, dtype=torch.float64)

    def forward(self, features, needs=()):
        return super().forward(features, needs).map_embedding(self.norm)


class DropsOutByItself(ToyEncoder):
    """Dropout without a module for it."""

    def forward(self, features, needs=()):
        found = super().forward(features, needs)
        return found.map_embedding(lambda embedding: nn.functional.dropout(embedding, 0.3, self.training))


class TrainsItsLastLayer(ToyEncoder):
    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.requires_grad_(False)
        self.second.requires_grad_(True)


class PadsToTheLongest(ToyEncoder):
    """Features of 64 positions, whatever the texts."""

    def preprocess(self, texts, *, role="text", prompt=None):
        features = super().preprocess(texts, role=role, prompt=prompt)
        missing = 64 - features["input_ids"].shape[1]
        return {key: nn.functional.pad(value, (0, missing)) for key, value in features.items()}


class Half(ToyEncoder):
    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.bfloat16()


@pytest.mark.parametrize("cls", [BatchNormed, Half, DropsOutByItself, TrainsItsLastLayer, PadsToTheLongest])
def test_what_is_unusual_is_no_finding(cls):
    left_out = {"encoder-config"} | ({"encoder-padding"} if cls is PadsToTheLongest else set())
    for each in check(made_of(cls), only=sorted(set(IDS) - {"encoder-config"})):
        assert each.status == ("not_applicable" if each.id in left_out else "passed"), each


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dense", {"normalize": True, "truncate_dim": 5, "prompts": {"query": "word1: "}}),
        ("splade", {"max_active_dims": 4, "pooling": "sum"}),
        ("csr", {"train_backbone": False, "k": 3}),
        ("multi-vector", {"query_expansion": {"length": 40}, "skiplist_words": [",", "the"]}),
        ("inference-free-splade", {"train_query_weights": False}),
        ("static", {"normalize": True}),
        ("mlp", {"hidden": [4], "dropout": 0.2, "standardize": False}),
    ],
)
def test_options_change_nothing_of_it(name, options):
    cls = losskit.get("encoder", name).load()
    subject = Subject(partial(cls, **options_for(cls), **options), kind="encoder", component=cls)
    quick = [law for law in IDS if law != "encoder-in-a-loss"]
    assert [each for each in check(subject, only=quick) if each.status not in ("passed", "not_applicable")] == []


# Defects


class Unnamed(ToyEncoder):
    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.family = "vectors"


class Misnamed(ToyEncoder):
    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.similarity = "cosinus"


class WidthInWords(ToyEncoder):
    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.dimension = "8"


class OnlyTakes(ToyEncoder):
    def take(self, features, rows):
        return features


class LoadsItself(ToyEncoder):
    def load(self, path):
        return self


class OffItsCard(ToyEncoder):
    card = losskit.Card(encoders=["sparse"])


class Bare:
    """Nothing but features and a family."""

    family = "dense"

    def preprocess(self, texts, *, role="text", prompt=None):
        return {}


class AdoptsAnything(ToyEncoder):
    @classmethod
    def adapt(cls, model):
        return cls() if isinstance(model, nn.Module) else None


class AdoptsByAttribute(ToyEncoder):
    @classmethod
    def adapt(cls, model):
        return cls() if model.tokenizer is not None else None


class Changed(ToyEncoder):
    """Changes the embedding."""

    def forward(self, features, needs=()):
        return super().forward(features, needs).map_embedding(lambda embedding: self.changed(embedding, features))


class Turned(Changed):
    def changed(self, embedding, features):
        return embedding.T


class Wide(Changed):
    def changed(self, embedding, features):
        return torch.cat([embedding, embedding], -1)


class Constant(Changed):
    def changed(self, embedding, features):
        return embedding.mean() + 0 * embedding


class SometimesNaN(Changed):
    def changed(self, embedding, features):
        return torch.where(features["attention_mask"].sum(1, keepdim=True) > 1, embedding, torch.nan)


class SaysNormalized(ToyEncoder):
    normalized = True


class Unmasked(ToyEncoder):
    def forward(self, features, needs=()):
        return Output(super().forward(features, needs).embedding)


class JoinsLayers(ToyEncoder):
    def forward(self, features, needs=()):
        found = super().forward(features, needs)
        return replace(found, layers=(torch.stack(found.layers),)) if needs == ("layers",) else found


class BareTokens(ToyEncoder):
    def forward(self, features, needs=()):
        parts = {"input_ids": features["input_ids"]} if "input_ids" in needs else {}
        return replace(super().forward(features), parts=parts)


class IgnoresNeeds(ToyEncoder):
    """Losses that need more refuse it by name."""

    def forward(self, features, needs=()):
        return super().forward(features)


class Encodes(ToyEncoder):
    """Changes what `encode` gives."""

    def encode(self, texts, **options):
        return self.given(texts, super().encode(texts, **options))


class Unsorted(Encodes):
    def given(self, texts, found):
        return found[sorted(range(len(texts)), key=lambda place: len(texts[place]))]


class UnitLength(Encodes):
    def given(self, texts, found):
        return found / np.linalg.norm(found, axis=1, keepdims=True)


class Listed(Encodes):
    def given(self, texts, found):
        return list(found)


class Truncated(Encodes):
    def given(self, texts, found):
        return found[:, 2:]


class DropsSmallTerms(Encodes):
    def given(self, texts, found):
        dense = found.toarray()
        return type(found)(np.where(dense == dense.max(1, keepdims=True), 0, dense))


class Negated(Encodes):
    def given(self, texts, found):
        return -found


class FirstClass(Encodes):
    def given(self, texts, found):
        return found[:, 0]


class LeavesOut(Encodes):
    def given(self, texts, found):
        return found[1:]


class Probabilities(Encodes):
    """An activation of classes, as there may be."""

    def given(self, texts, found):
        return np.exp(found) / np.exp(found).sum(1, keepdims=True)


class BatchesOfTwo(Encodes):
    def encode(self, texts, *, batch_size=32, **options):
        found = super().encode(texts, **options)
        return found[:batch_size]

    def given(self, texts, found):
        return found


class NeedsTexts(ToyEncoder):
    def encode(self, texts, **options):
        return np.stack([super(NeedsTexts, self).encode([text], **options)[0] for text in texts])


class Unlimited(ToyEncoder):
    def forward(self, features, needs=()):
        if features["input_ids"].shape[1] > 60:
            raise IndexError("index out of range in self")
        return super().forward(features, needs)


class Centred(Changed):
    """Each row depends on the others of its forward."""

    def changed(self, embedding, features):
        return embedding - embedding.mean(0)


class ByRole(ToyEncoder):
    """Has a prompt for queries; as it should."""

    def preprocess(self, texts, *, role="text", prompt=None):
        return super().preprocess(texts, prompt="word5" if role == "query" and prompt is None else prompt)

    def encode(self, texts, *, role="text", prompt=None, batch_size=32, progress=False):
        return super().encode(texts, prompt="word5" if role == "query" and prompt is None else prompt)


class EncodesTextsOnly(ByRole):
    def encode(self, texts, *, role="text", prompt=None, batch_size=32, progress=False):
        return super().encode(texts, prompt=prompt)


class EncodesWithoutPrompt(ToyEncoder):
    def encode(self, texts, *, role="text", prompt=None, batch_size=32, progress=False):
        return super().encode(texts, role=role)


class DropsPrompt(ToyEncoder):
    def preprocess(self, texts, *, role="text", prompt=None):
        return super().preprocess(texts)


class StaysInEvaluation(ToyEncoder):
    def encode(self, texts, **options):
        self.eval()
        return super().encode(texts, **options)


class DropsOutInEncode(ToyEncoder):
    def encode(self, texts, **options):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return self(self.preprocess(texts)).embedding.numpy()


class DrawsInPreprocess(ToyEncoder):
    def preprocess(self, texts, **options):
        random.random()
        return super().preprocess(texts, **options)


class WritesFeatures(ToyEncoder):
    def forward(self, features, needs=()):
        found = super().forward(features, needs)
        features["token_embeddings"] = found.embedding
        return found


class AlwaysNoisy(Changed):
    def changed(self, embedding, features):
        return nn.functional.dropout(embedding, 0.5, training=True)


class MeansPadding(Changed):
    def changed(self, embedding, features):
        return embedding + self.words(features["input_ids"]).mean(1)


class Packed(ToyEncoder):
    """All tokens in a row, with no way to cut them."""

    def preprocess(self, texts, **options):
        features = super().preprocess(texts, **options)
        mask = features["attention_mask"].bool()
        return {"input_ids": features["input_ids"][mask], "offsets": mask.sum(1).cumsum(0) - mask.sum(1)}

    def forward(self, features, needs=()):
        sums = nn.functional.embedding_bag(features["input_ids"], self.words.weight, features["offsets"], mode="mean")
        return Output(self.second(sums))


class TakesInOrder(ToyEncoder):
    def take(self, features, rows):
        places = range(len(features["input_ids"]))[rows] if isinstance(rows, slice) else rows
        return {key: value[sorted(places)] for key, value in features.items()}

    def join(self, features):
        return features[0]


class JoinsBackwards(TakesInOrder):
    def take(self, features, rows):
        return {key: value[rows] for key, value in features.items()}

    def join(self, features):
        return {key: torch.cat([each[key] for each in features[::-1]]) for key in features[0]}


class Detached(Changed):
    def changed(self, embedding, features):
        return embedding.detach()


class HalfDetached(ToyEncoder):
    def forward(self, features, needs=()):
        found = super().forward(features, needs)
        return found.map_embedding(lambda embedding: embedding + self.head(embedding).detach() / 10)


class NaNGradient(Changed):
    def changed(self, embedding, features):
        return embedding + (embedding * 0).sqrt()


class DrawsElsewhere(Changed):
    """Dropout by a generator that no replay restores."""

    def changed(self, embedding, features):
        if not self.training:
            return embedding
        kept = torch.tensor([[random.random() > 0.3] for _ in embedding])
        return embedding * kept


class CountsForwards(ToyEncoder):
    calls = 0

    def forward(self, features, needs=()):
        self.calls += self.training
        return (
            super().forward(features, needs).map_embedding(lambda embedding: embedding + embedding.tanh() * self.calls)
        )


class _Against(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Uphill(Changed):
    def changed(self, embedding, features):
        return _Against.apply(embedding)


class Pickles(ToyEncoder):
    def save(self, path):
        super().save(path)
        torch.save(self.state_dict(), Path(path) / "pytorch_model.bin")


class SavesNothing(ToyEncoder):
    def save(self, path):
        pass


class ForgetsAScale(ToyEncoder):
    def __init__(self, *given, scale=1.0, **options):
        super().__init__(*given, **options)
        self.scale = scale

    def forward(self, features, needs=()):
        return super().forward(features, needs).map_embedding(lambda embedding: embedding * self.scale)


class LoadsAnything(ToyEncoder):
    @classmethod
    def load(cls, path):
        try:
            return super().load(path)
        except Exception:  # noqa: BLE001 - the defect
            return cls()


class HoldsLambda(ToyEncoder):
    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.clean = lambda text: text


class LosesWeights(ToyEncoder):
    def __reduce__(self):
        return type(self), (self.family,)


def forgets_its_dimension():
    toy = ToyEncoder("dense", dimension=4, seed=0)
    toy.get_config_dict = lambda: {"family": "dense", "seed": 0}
    return toy


def names_an_option_wrongly():
    toy = ToyEncoder("dense", seed=0)
    toy.get_config_dict = lambda: {"kind": "dense", "seed": 0}
    return toy


def bare():
    return Subject(Bare, kind="encoder")


DEFECTS = [
    ("encoder-protocol", made_of(Unnamed), "its family is none"),
    ("encoder-protocol", made_of(Misnamed), "its similarity is none"),
    ("encoder-protocol", made_of(WidthInWords), "its dimension is none"),
    ("encoder-protocol", made_of(OnlyTakes), "features are cut and joined by one encoder"),
    ("encoder-protocol", made_of(LoadsItself), "load is called on the class"),
    ("encoder-protocol", made_of(OffItsCard), "its family is not on its card"),
    ("encoder-protocol", bare(), "it is no Encoder"),
    ("encoder-adapt", made_of(AdoptsAnything), "adapt of a foreign Linear"),
    ("encoder-adapt", made_of(AdoptsByAttribute), "'object' object has no attribute 'tokenizer'"),
    ("encoder-records", made_of(Turned), "the embedding"),
    ("encoder-records", made_of(Wide), "the width of the embedding is not its dimension"),
    ("encoder-records", made_of(Constant), "all items have the same record"),
    ("encoder-records", made_of(SometimesNaN), "the record of item 3 is not finite"),
    ("encoder-records", made_of(SaysNormalized), "normalized, but the record of item 1 is not"),
    ("encoder-records", made_of(Unmasked, "multi-vector"), "the mask of tokens"),
    ("encoder-records", made_of(JoinsLayers), "the layers"),
    ("encoder-records", made_of(BareTokens), "the part input_ids"),
    ("encode", made_of(Unsorted), "encode beside the records: item 1 of 6 differs"),
    ("encode", made_of(UnitLength), "encode beside the records: item 1 of 6 differs"),
    ("encode", made_of(Listed), "encode"),
    ("encode", made_of(Truncated), "encode beside the records: item 1 of 6 differs"),
    ("encode", made_of(DropsSmallTerms, "sparse"), "encode beside the records: item 1 of 6 differs"),
    ("encode", made_of(Negated, "cross-encoder"), "encode beside the records: the order of scores differs"),
    ("encode", made_of(Negated, "cross-encoder", outputs=3), "encode beside the records: the order of scores differs"),
    ("encode", made_of(FirstClass, "cross-encoder", outputs=3), "encode beside the records: the shape of scores"),
    ("encode", made_of(LeavesOut, "sparse"), "encode beside the records: another number of items"),
    ("encode", made_of(BatchesOfTwo), "encode with batch_size=1: another number of items"),
    ("encode", made_of(NeedsTexts), "need at least one array to stack"),
    ("encode", made_of(Unlimited), "IndexError: index out of range in self"),
    ("encode", made_of(Centred), "the first item alone: item 1 of 1 differs"),
    ("encoder-roles", made_of(EncodesTextsOnly), "encode with role='query' beside the records: item 1 of 6 differs"),
    ("encoder-roles", made_of(EncodesWithoutPrompt), "encode with a prompt beside the records: item 1 of 6 differs"),
    ("encoder-roles", made_of(DropsPrompt), "a prompt is not read, and not refused"),
    ("encoder-modes", made_of(StaysInEvaluation), "encode with training=True changes the modes of its parts"),
    ("encoder-modes", made_of(DropsOutInEncode, dropout=0.3), "encode with training=True: item 1 of 6 differs"),
    ("encoder-modes", made_of(DrawsInPreprocess), "changes the random state of Python"),
    ("encoder-modes", made_of(WritesFeatures), "a call changes the keys of its features"),
    ("encoder-modes", made_of(AlwaysNoisy), "encode with training=False changes the random state of torch"),
    ("encoder-padding", made_of(MeansPadding), "text: 'word3 word14', padded: item 1 of 1 differs"),
    ("encoder-take-join", made_of(Packed), "its features cannot be cut"),
    ("encoder-take-join", made_of(TakesInOrder), "text: items [5, 0] cut from features: item 1 of 2 differs"),
    ("encoder-take-join", made_of(JoinsBackwards), "text: the first item joined with all: item 2 of 7 differs"),
    ("encoder-gradient", made_of(Detached), "the records are not connected to the parameters"),
    ("encoder-gradient", made_of(HalfDetached), "records depend on head.weight, which gets no gradient"),
    ("encoder-gradient", made_of(NaNGradient), "the gradient of words.weight"),
    ("encoder-in-a-loss", made_of(Detached), "the loss is not connected to its inputs"),
    ("encoder-in-a-loss", made_of(Centred), "in a loss, "),
    ("encoder-in-a-loss", made_of(DrawsElsewhere), "in a loss"),
    ("encoder-in-a-loss", made_of(CountsForwards), "in a loss, "),
    ("encoder-in-a-loss", made_of(Uphill), "steps against the gradient do not lower the loss"),
    ("encoder-in-a-loss", made_of(Packed), "Fix: give Packed methods take(features, rows)"),
    ("encoder-saved", made_of(Pickles), "save writes a pickle, pytorch_model.bin"),
    ("encoder-saved", made_of(SavesNothing), "save writes nothing"),
    ("encoder-saved", made_of(ForgetsAScale, scale=2.0), "loaded: encode with role='query': item 1 of 6 differs"),
    ("encoder-saved", made_of(LoadsAnything), "load of an empty folder"),
    ("encoder-pickled", made_of(HoldsLambda), "an't pickle"),
    ("encoder-pickled", made_of(LosesWeights), "unpickled: encode with role='query': item 1 of 6 differs"),
    ("encoder-config", Subject(forgets_its_dimension, kind="encoder"), "the configuration of the encoder"),
    ("encoder-config", Subject(names_an_option_wrongly, kind="encoder"), "kind: expected an option of"),
]


@pytest.mark.parametrize(("law", "subject", "words"), DEFECTS, ids=lambda value: getattr(value, "note", None))
def test_each_defect_is_found(law, subject, words):
    found = found_by(law, subject)
    assert (found.id, found.status) == (law, "failed"), found
    assert words in found.message
    assert found.expected
    assert found.got
    assert found.cause


def test_every_law_is_tried():
    assert {law for law, _, _ in DEFECTS} == set(IDS)


def test_a_defect_is_found_twice_alike():
    for law, subject in (("encode", made_of(Unsorted)), ("encoder-in-a-loss", made_of(Centred))):
        assert found_by(law, subject) == found_by(law, subject)


def test_what_an_encoder_begins_with_follows_the_seed():
    mlp = losskit.get("encoder", "mlp").load()
    first, other = (ready(Subject(mlp, kind="encoder", seed=seed)) for seed in (0, 1))
    torch.rand(1)
    again, _ = ready(Subject(mlp, kind="encoder"))
    scores, others, repeated = (each.encode(first[1]).tolist() for each in (first[0], other[0], again))
    assert scores == repeated != others


def test_what_is_allowed_is_no_finding():
    assert found_by("encoder-roles", made_of(ByRole)).status == "passed"
    assert found_by("encoder-records", made_of(IgnoresNeeds)).status == "passed"
    assert found_by("encode", made_of(Probabilities, "cross-encoder", outputs=3)).status == "passed"


# What an encoder reads


class Numbers(ToyEncoder):
    """Reads numbers: how many words a text has."""

    def preprocess(self, texts, *, role="text", prompt=None):
        if not all(isinstance(each, int) for each in texts):
            raise DataError("numbers", expected="whole numbers", got="something else")
        return super().preprocess([" ".join(["word3"] * each) for each in texts])


class KnownNumbers(Numbers):
    examples = (1, 4, 2, 7)


def test_what_is_not_known_to_be_readable_is_not_judged():
    found = {each.id: each for each in check(made_of(Numbers), only=IDS)}
    told = "what it reads is not known: it refuses texts, and has no attribute `examples` (numbers: expected"
    for name in set(IDS) - {"encoder-protocol", "encoder-adapt"}:
        assert found[name].status == "not_applicable"
        assert found[name].message.startswith(told)


def test_examples_are_read_in_place_of_texts():
    assert found_by("encode", made_of(KnownNumbers)).status == "passed"
    assert found_by("encoder-roles", made_of(KnownNumbers)).message == "a prompt is not read, and not refused"


def test_what_is_no_module_has_nothing_to_train():
    class Frozen:
        def __init__(self):
            self.__dict__["toy"] = ToyEncoder(seed=0)

        def __getattr__(self, name):
            return getattr(self.__dict__["toy"], name)

        def __call__(self, features, needs=()):
            return self.__dict__["toy"](features, needs)

    subject = Subject(Frozen, kind="encoder")
    for law in ("encoder-gradient", "encoder-in-a-loss"):
        assert found_by(law, subject).message == "it has no parameters that are to be trained"
    assert found_by("encode", subject).status == "passed"


# The tiny transformer


def test_a_path_is_the_tiny_transformer():
    class Optional(ToyEncoder):
        def __init__(self, pooling: str = "mean", model: str | None = None): ...

    class Module:
        def __init__(self, model: nn.Module): ...

    assert options_for(Optional) == {"model": str(tiny_folder())}
    assert options_for(Module) == options_for(ToyEncoder) == {}


def test_the_tiny_transformer_is_the_same_in_every_folder():
    first, second = tiny_folder(), tiny._written.__wrapped__(0.1)
    assert first != second
    names = sorted(file.name for file in first.iterdir())
    assert names == sorted(file.name for file in second.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_making_it_is_silent_and_leaves_the_random_state(capfd):
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny._written.__wrapped__(0.1)
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")
