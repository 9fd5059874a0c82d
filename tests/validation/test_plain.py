"""Plain modules under the laws: their model plays records, whatever they merge, cut, copy or call again."""

from __future__ import annotations

import copy
import pickle
import random

import pytest
import torch
from torch import nn

from losskit import Format, LossError, Output, losses
from losskit.testing import Subject, ToyEncoder, check, differentiate, require_equal
from losskit.testing.plain import InBatch, PlainLoss, filled_in, of_embeddings, plain_subjects
from losskit.testing.player import Player
from losskit.testing.playing import Playing

PAIRS, SCORED = Format(["anchor", "positive"]), Format(["text", "text"], labels="score")
LISTS = Format(["query", "documents"], labels="scores")
LAWS = ["degenerate", "half-precision", "meta", "order", "padding", "untouched", "pickled"]
"""Those that a plain module must keep, and that no other test of this folder is about."""
NOT_PLAIN = ["additivity", "executions", "dropout", "config", "compiles"]


class Contrast(nn.Module):
    """In-batch negatives by a score of each pair, encoding column by column."""

    def __init__(self, model, scale=1.0):
        super().__init__()
        self.model, self.scale = model, scale

    def encode(self, features):
        return [self.model(each)["sentence_embedding"] for each in features]

    def forward(self, sentence_features, labels=None):
        a, *others = self.encode(sentence_features)
        scores = self.scale * a @ torch.cat(others).T
        return nn.functional.cross_entropy(scores, torch.arange(len(a), device=a.device))


class Merged(Contrast):
    """All columns in one forward, padded to the widest."""

    def encode(self, features):
        width = max(each["input_ids"].shape[1] for each in features)
        wide = [{k: nn.functional.pad(v, (0, width - v.shape[1])) for k, v in each.items()} for each in features]
        joined = {key: torch.cat([each[key] for each in wide]) for key in wide[0]}
        return list(self.model(joined)["sentence_embedding"].chunk(len(features)))


class Sliced(Contrast):
    """Two rows at a time, each given only what any transformer reads."""

    def encode(self, features):
        def part(each, start):
            return {key: each[key][start : start + 2] for key in ("input_ids", "attention_mask")}

        starts = range(0, len(features[0]["input_ids"]), 2)
        return [torch.cat([super(Sliced, self).encode([part(each, s)])[0] for s in starts]) for each in features]


class Cached(Contrast):
    """Gradient caching: encodes without gradients, and again in a hook of the backward."""

    def forward(self, sentence_features, labels=None):
        with torch.no_grad():
            leaves = [each.requires_grad_() for each in self.encode(sentence_features)]
        if not torch.is_grad_enabled():
            return self.of(leaves)
        with torch.enable_grad():
            loss = self.of(leaves)
            loss.backward()
        value = loss.detach().requires_grad_()
        value.register_hook(lambda upstream: self.again(sentence_features, leaves, upstream))
        return value

    def of(self, made):
        scores = self.scale * made[0] @ torch.cat(made[1:]).T
        return nn.functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))

    def again(self, features, leaves, upstream):
        with torch.enable_grad():
            for each, leaf in zip(self.encode(features), leaves, strict=True):
                ((each * leaf.grad).sum() * upstream).backward()


class HalfCached(Cached):
    """A cached loss beside a direct one, of which only the second is in the graph."""

    def forward(self, sentence_features, labels=None):
        direct = Contrast.forward(self, sentence_features)
        return {"cached": super().forward(sentence_features), "direct": direct}


class Late(Contrast):
    """Late interaction with in-batch negatives."""

    def encode(self, features):
        return [self.model(each, task="query") for each in features]

    def forward(self, sentence_features, labels=None):
        q, d = self.encode(sentence_features)
        tokens = torch.einsum("qsh,dth->qdst", q["token_embeddings"].double(), d["token_embeddings"].double())
        tokens = tokens.masked_fill(d["attention_mask"].logical_not()[None, :, None], -1e4)
        scores = (tokens.amax(-1) * q["attention_mask"][:, None]).sum(-1)
        return nn.functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


class Reranker(nn.Module):
    """Cross-entropy of scores of pairs and labels; asks for a type of model, as some do."""

    def __init__(self, model: Reads):
        super().__init__()
        self.model = model
        assert isinstance(model, Reads)
        assert model.num_labels == model.config.num_labels == 1

    def forward(self, inputs, labels, prompt=None, task=None):
        tokens = self.model.preprocess(list(zip(*inputs, strict=True)), prompt=prompt, task=task)
        scores = self.model({key: value.to(self.model.device) for key, value in tokens.items()})["scores"].view(-1)
        return nn.functional.binary_cross_entropy_with_logits(scores.double(), labels.double())


class Older(Reranker):
    """The same by the calls of older versions."""

    def forward(self, inputs, labels):
        tokens = self.model.tokenizer(*inputs, padding=True, truncation=True, return_tensors="pt")
        scores = self.model(**tokens.to(self.model.device)).logits[:, 0]
        return nn.functional.binary_cross_entropy_with_logits(scores.double(), labels.double())


class Reads(nn.Module):
    """A type of model."""


class EachWithAll(nn.Module):
    """Scores every query with every document of the batch."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs, labels=None):
        queries, documents = inputs[0], [text for column in inputs[1:] for text in column]
        tokens = self.model.preprocess([(query, document) for query in queries for document in documents])
        scores = self.model(tokens.to(self.model.device))["scores"].view(len(queries), -1)
        return nn.functional.cross_entropy(scores.double(), torch.arange(len(queries), device=scores.device))


class ListWise(nn.Module):
    """ListNet of lists of documents, with a list of labels for each."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs, labels):
        terms = []
        for query, documents, graded in zip(*inputs, labels, strict=True):
            scores = self.model(self.model.preprocess([(query, each) for each in documents]).to(self.model.device))[0]
            terms.append(nn.functional.cross_entropy(scores[:, 0].double(), graded.double().softmax(0)))
        return torch.stack(terms).mean()


class Around(nn.Module):
    """A wrapper that halves what it wraps, and asks a guide about the first column."""

    def __init__(self, model, loss: nn.Module, guide: SentenceTransformer):
        super().__init__()
        self.model, self.loss, self.guide = model, loss, guide
        assert guide.tokenizer.get_vocab() == model.tokenizer.get_vocab()

    def forward(self, sentence_features, labels=None):
        with torch.no_grad():
            weight = self.guide(dict(sentence_features[0]))["sentence_embedding"].sum(1).sigmoid().mean()
        return weight * self.loss(sentence_features, labels) / 2


class Classifies(nn.Module):
    """Owns a layer, made where the model is; decides by a parameter of the model which type to compute in."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.layer = nn.Linear(model.get_sentence_embedding_dimension(), 3, device=model.device)

    def forward(self, sentence_features, labels):
        assert next(self.model.parameters()).dtype == torch.float32
        made = self.model(sentence_features[0])["sentence_embedding"]
        logits = self.layer(made.to(self.layer.weight.dtype))
        return nn.functional.cross_entropy(logits, labels)


SOUND = {
    "dense": plain_subjects(Contrast, {"scale": 2.0}, [PAIRS, Format(["anchor", "positive", "negative*"])]),
    "merged": plain_subjects(Merged, formats=[PAIRS]),
    "sliced": plain_subjects(Sliced, families=["sparse"]),
    "cached": plain_subjects(Cached),
    "half-cached": plain_subjects(HalfCached),
    "late": plain_subjects(Late, families=["multi-vector"]),
    "reranker": plain_subjects(Reranker, formats=[SCORED], families=["cross-encoder"]),
    "older": plain_subjects(Older, formats=[SCORED], families=["cross-encoder"]),
    "each-with-all": plain_subjects(EachWithAll, formats=[PAIRS], families=["cross-encoder"]),
    "list-wise": plain_subjects(ListWise, formats=[LISTS], families=["cross-encoder"]),
    "around": plain_subjects(Around),
    "classifies": plain_subjects(Classifies, formats=[Format(["text"], labels="class")]),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_modules(name):
    found = [each for subject in SOUND[name] for each in check(subject, only=LAWS)]
    assert [each.status for each in found] == ["passed"] * len(LAWS) * len(SOUND[name]), found


def _stage(subject):
    loss = subject.build()
    columns = subject.records(loss)
    return loss, columns, [each.embedding for each in columns]


@pytest.mark.parametrize("name", ["dense", "merged", "sliced", "cached"])
def test_records_are_played(name):
    subject = SOUND[name][0]
    loss, columns, leaves = _stage(subject)
    ours = losses.MultipleNegativesRankingLoss(loss.model, scale=loss.plain.scale, similarity="dot")
    for _ in range(2):  # a cached module is called another way from its second batch on
        got = differentiate(loss.compute(columns, None, slice(0, 6)), leaves)
        require_equal(name, differentiate(ours.compute(columns, None, slice(0, 6)), leaves), got)


def test_gradients_of_a_hook_and_of_the_graph_add_up():
    (subject,) = SOUND["half-cached"]
    loss, columns, leaves = _stage(subject)
    value = loss.compute(columns, None, slice(0, 6))
    assert set(value) == {"cached", "direct"}
    twice = Contrast(None)
    scores = leaves[0] @ leaves[1].T
    expected = differentiate(2 * nn.functional.cross_entropy(twice.scale * scores, torch.arange(6)), leaves)
    require_equal("both", expected, differentiate(value, leaves))


def test_hooks_leave_gradients_untouched():
    loss, columns, leaves = _stage(SOUND["cached"][0])
    leaves[0].grad = torch.ones_like(leaves[0])
    differentiate(loss.compute(columns, None, slice(0, 6)), leaves)
    assert leaves[0].grad.eq(1).all()
    assert leaves[1].grad is None


def test_token_records_are_played():
    (subject,) = SOUND["late"]
    loss, columns, leaves = _stage(subject)
    ours = losses.MultipleNegativesRankingLoss(loss.model, scale=1.0)
    expected = differentiate(ours.compute(columns, None, slice(0, 6)), leaves)
    require_equal("late", expected, differentiate(loss.compute(columns, None, slice(0, 6)), leaves))


@pytest.mark.parametrize("name", ["reranker", "older"])
def test_scores_are_played(name):
    (subject,) = SOUND[name]
    loss, columns, leaves = _stage(subject)
    labels = subject.batch.labels
    expected = nn.functional.binary_cross_entropy_with_logits(leaves[0], labels)
    got = loss.compute(columns, labels, slice(0, 6))
    require_equal(name, differentiate(expected, leaves), differentiate(got, leaves))


def test_lists_are_played_with_their_labels():
    (subject,) = SOUND["list-wise"]
    loss, columns, leaves = _stage(subject)
    ours = losses.ListNetLoss(loss.model)
    labels = subject.batch.flat_labels
    expected = differentiate(ours.compute(columns, labels, slice(0, 6)), leaves)
    require_equal("lists", expected, differentiate(loss.compute(columns, labels, slice(0, 6)), leaves))


def test_scores_of_pairs_that_no_row_has():
    scores = torch.tensor([0.5, 2.0, -1.0, 7.0], dtype=torch.float64, requires_grad=True)
    loss = PlainLoss(ToyEncoder("cross-encoder"), EachWithAll, PAIRS)
    asked = [("query 0", "document 0"), ("query 0", "document 3"), ("query 1", "document 3")]
    with loss.player.plays(Playing([Output(scores, lists=(2, 2))], Format(["query", "positive", "negative"]))):
        found = loss.player(loss.player.preprocess(asked))["scores"][:, 0]
    assert found.tolist() == [0.5, pytest.approx(torch.tensor(1.25 + 14.0).sin().item()), 7.0]
    (slope,) = torch.autograd.grad(found[1], scores)
    assert slope.count_nonzero() == 3


def test_copies_of_a_model_play_the_same():
    class Copies(Contrast):
        def __init__(self, model):
            super().__init__(model)
            self.other = copy.deepcopy(model)

        def forward(self, sentence_features, labels=None):
            a, b = self.model(sentence_features[0]), self.other(sentence_features[0])
            return (a["sentence_embedding"] * b["sentence_embedding"]).sum()

    loss, columns, leaves = _stage(plain_subjects(Copies)[0])
    got = differentiate(loss.compute(columns, None, slice(0, 6)), leaves)
    require_equal("copies", differentiate(leaves[0].square().sum(), leaves), got)


def test_what_cannot_apply_says_why():
    found = {each.id: each for each in check(SOUND["dense"][0], only=NOT_PLAIN)}
    assert {each.status for each in found.values()} == {"not_applicable"}
    assert found["executions"].message == "a plain module encodes by itself, so there is no execution to choose"


def test_players_are_pickled_with_their_type():
    (subject,) = SOUND["reranker"]
    again = pickle.loads(pickle.dumps(subject.build()))
    assert isinstance(again.player, Reads)
    assert isinstance(again.player, Player)
    assert again.plain.model is again.player


def test_a_subject_for_each_family_and_format():
    made = plain_subjects(Contrast, None, [PAIRS, SCORED], ["dense", "sparse"], seed=3)
    names = ["dense-anchor-positive", "dense-text-text", "sparse-anchor-positive", "sparse-text-text"]
    assert [str(each) for each in made] == names
    assert {(each.plain, each.looked_at, each.seed) for each in made} == {(True, Contrast, 3)}


def test_what_is_filled_in():
    assert filled_in(Around) == ("loss", "guide")
    assert filled_in(Contrast) == ()
    assert isinstance(plain_subjects(Around)[0].build().plain.loss, InBatch)
    given = plain_subjects(Around, {"loss": nn.Identity()})[0]
    assert isinstance(given.build().plain.loss, nn.Identity)


def test_parts_of_records():
    class Reconstructs(Contrast):
        def forward(self, sentence_features, labels=None):
            made = self.model(sentence_features[0])
            return nn.functional.mse_loss(made["decoded_embedding_k"], made["sentence_embedding_backbone"])

    (subject,) = plain_subjects(Reconstructs, families=["sparse"], parts=("backbone", "decoded_k"))
    loss = subject.build()
    columns = subject.records(loss)
    expected = nn.functional.mse_loss(columns[0].parts["decoded_k"], columns[0].parts["backbone"])
    assert loss.compute(columns, None, slice(0, 6)) == expected


# Defects


class ByPlace(Contrast):
    def forward(self, sentence_features, labels=None):
        made = self.model(sentence_features[0])["sentence_embedding"]
        return made.sum(1) @ torch.arange(len(made), dtype=made.dtype, device=made.device)


class LeavesEval(Contrast):
    def forward(self, sentence_features, labels=None):
        self.model.eval()
        return super().forward(sentence_features)


class Draws(Contrast):
    def forward(self, sentence_features, labels=None):
        return super().forward(sentence_features) * (1 + torch.rand(()))


class DrawsInPython(Contrast):
    def forward(self, sentence_features, labels=None):
        return super().forward(sentence_features) * (1 + random.random())


class Forgets(Contrast):
    def encode(self, features):
        return [each.detach() for each in super().encode(features)]


class Naive(Contrast):
    def forward(self, sentence_features, labels=None):
        a, b = self.encode(sentence_features)
        scores = (a @ b.T).exp()
        return -(scores.diagonal() / scores.sum(1)).log().mean()


class Synchronises(Contrast):
    def forward(self, sentence_features, labels=None):
        value = super().forward(sentence_features)
        return value if value.item() > 0 else -value


BROKEN = {
    "order": (ByPlace, "rows in the order [5, 4, 3, 2, 1, 0]: the value differs"),
    "untouched": (LeavesEval, "a call changes the mode of the model"),
    "degenerate": (Naive, "huge records: the value is not finite"),
    "meta": (Synchronises, "meta"),
    "half-precision": (Forgets, "the loss is not connected to its inputs"),
}


@pytest.mark.parametrize("law", BROKEN)
def test_defects_are_found(law):
    module, message = BROKEN[law]
    (found,) = check(plain_subjects(module)[0], only=[law])
    assert found.status == "failed"
    assert message in found.message
    assert found.file == __file__


@pytest.mark.parametrize(("module", "source"), [(Draws, "torch"), (DrawsInPython, "Python")])
def test_draws_are_one_finding(module, source):
    found = {each.id: each for each in check(plain_subjects(module)[0], only=["order", "half-precision", "untouched"])}
    assert found["untouched"].message == f"a call changes the random state of {source}"
    assert found["order"].message == "its draws belong to rows"
    assert found["half-precision"].status == "passed"


# What a player refuses


def test_refuses_calls_outside_a_batch():
    class Early(Contrast):
        def __init__(self, model):
            super().__init__(model)
            model({"input_ids": torch.zeros(1, 1), "attention_mask": torch.zeros(1, 1)})

    with pytest.raises(LossError, match="calls within the forward of the loss"):
        plain_subjects(Early)[0].build()


def test_refuses_texts_of_no_batch():
    class Rewrites(EachWithAll):
        def forward(self, inputs, labels=None):
            return super().forward([[text.upper() for text in inputs[0]], inputs[1]])

    (found,) = check(plain_subjects(Rewrites, families=["cross-encoder"])[0], only=["untouched"])
    assert found.status == "failed"
    assert "expected those of the batch, as they are, got 'QUERY 0'" in found.message


def test_refuses_columns_without_embeddings():
    loss = SOUND["dense"][0].build()
    with pytest.raises(LossError, match="embeddings in every column"):
        loss.compute([Output(None, parts={"weight": torch.ones(2)})] * 2, None, slice(0, 2))


# Functions of embeddings


def test_refuses_columns_that_a_function_does_not_take():
    loss, columns, _ = _stage(of_embeddings(nn.functional.cross_entropy))
    with pytest.raises(ValueError, match="too many values"):
        loss.compute([*columns, *columns], torch.zeros(6, dtype=torch.long), slice(0, 6))


def test_functions_of_embeddings():
    subject = of_embeddings(nn.TripletMarginLoss(), seed=1)
    assert subject.looked_at is nn.TripletMarginLoss

    def by_class(embeddings, labels):
        same = labels[:, None] == labels
        return (torch.cdist(embeddings, embeddings).square() * same).mean()

    found = check(of_embeddings(by_class), only=["order", "untouched", "pickled"])
    assert [each.status for each in found] == ["passed", "passed", "failed"]  # a local function is not pickled


def test_objects_of_functions_are_copied():
    shared = nn.Linear(8, 3, dtype=torch.float64)

    class Proxies(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = shared

        def forward(self, embeddings, labels):
            return nn.functional.cross_entropy(self.layer(embeddings), labels)

    subject = of_embeddings(Proxies())
    one, other = subject.build(), subject.build()
    assert one.plain.loss.layer is not other.plain.loss.layer
    assert one.owned_state().keys() == {"plain.loss.layer.weight", "plain.loss.layer.bias"}
    assert subject.form == Format(["text"], labels="class")
    assert isinstance(subject, Subject)


# sentence-transformers


def test_losses_of_sentence_transformers():
    library = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    made = [
        *plain_subjects(library.MultipleNegativesRankingLoss),
        *plain_subjects(library.MatryoshkaLoss, {"matryoshka_dims": [8, 4]}),
        *plain_subjects(library.GISTEmbedLoss),
        *plain_subjects(library.CosineSimilarityLoss, formats=[SCORED]),
    ]
    found = [each for subject in made for each in check(subject, only=["order", "untouched", "padding", "pickled"])]
    assert {each.status for each in found} == {"passed"}


def test_cached_losses_of_sentence_transformers():
    library = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    results = []
    plain, cached = library.MultipleNegativesRankingLoss, library.CachedMultipleNegativesRankingLoss
    for subject in (*plain_subjects(plain), *plain_subjects(cached, {"mini_batch_size": 4})):
        loss, columns, leaves = _stage(subject)
        results.append(differentiate(loss.compute(columns, None, slice(0, 6)), leaves))
    require_equal("cached", *results)
