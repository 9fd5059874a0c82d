"""GIST, mega-batch margin and the forms of multiple negatives ranking beside sentence-transformers 6.2."""

from __future__ import annotations

import warnings

import pytest
import torch
from parity import (
    DIM,
    TEXTS,
    Stub,
    cached,
    embeddings,
    on,
    one_zero_vector,
    require_as_near,
    require_different,
    through,
)

from losskit import GradCache, Output
from losskit.testing import ToyEncoder, differentiate, require_equal
from losskit_plugins.losses.gist import GISTEmbedLoss
from losskit_plugins.losses.improved_contrastive import ImprovedContrastiveLoss
from losskit_plugins.losses.mega_batch_margin import MegaBatchMarginLoss
from losskit_plugins.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from losskit_plugins.losses.multiple_negatives_symmetric_ranking import MultipleNegativesSymmetricRankingLoss

original = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

SYMMETRIC = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
GTE = {"directions": ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")}
GIST = [
    {},
    {"temperature": 0.1, "margin": 0.2},
    {"temperature": 0.1, "margin": 0.3, "margin_strategy": "relative"},
    {"temperature": 0.1, "contrast_anchors": False},
    {"temperature": 0.1, "contrast_positives": False},
]


class Tokenized(Stub):
    """A stub with the tokenizer that the incumbent's GIST asks for."""

    max_seq_length = 10

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.toy = ToyEncoder(dimension=DIM, seed=seed)
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
        self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words)


MODEL, GUIDE = Tokenized(), Tokenized(5)


def original_gist(cached=False, **options):
    made = original.CachedGISTEmbedLoss if cached else original.GISTEmbedLoss
    return made(MODEL, GUIDE, **options)


class Guided:
    """A GIST loss of either library on embeddings that come with a guide's."""

    def __init__(self, loss, guides=None):
        self.loss, self.guides = loss, guides

    def parameters(self):
        return ()

    def compute_loss_from_embeddings(self, columns, labels):
        guides = self.guides
        if guides is None:
            rows = columns[0].shape[0]
            guides = [each.detach().roll(1, 0) for each in embeddings(len(columns), rows, dim=DIM - 1)]
        if isinstance(self.loss, original.CachedGISTEmbedLoss):
            return self.loss.calculate_loss([[each] for each in columns], [[each] for each in guides])
        records = [Output(a, parts={"guide": Output(b)}) for a, b in zip(columns, guides, strict=True)]
        return self.loss.compute(records, labels, slice(0, len(columns[0])))


class OnEmbeddings:
    """The incumbent's mega-batch loss on embeddings."""

    def __init__(self, **options):
        self.loss = original.MegaBatchMarginLoss(MODEL, use_mini_batched_version=False, **options)

    def parameters(self):
        return ()

    def compute_loss_from_embeddings(self, columns, labels):
        return self.loss.calculate_loss([[each] for each in columns])


def ours_through(loss, columns):
    """Our GIST on what model and guide make of the texts, with the gradients of the model."""
    features = [MODEL.preprocess(column) for column in TEXTS[:columns]]
    with torch.no_grad():
        guides = [GUIDE.toy(each) for each in features]
    records = [Output(MODEL.toy(a).embedding, parts={"guide": b}) for a, b in zip(features, guides, strict=True)]
    return differentiate(loss.compute(records, None, slice(0, 4)), list(MODEL.parameters()))


@pytest.mark.parametrize("options", GIST, ids=str)
@pytest.mark.parametrize("columns", [2, 3])
def test_gist(options, columns):
    ours = GISTEmbedLoss(MODEL, GUIDE, **options)
    expected = through(MODEL, original_gist(**options), columns)
    require_equal("one negative at most", expected, ours_through(ours, columns))
    theirs = original_gist(cached=True, mini_batch_size=3, **options)
    require_equal("cached", cached(MODEL, theirs, columns), ours_through(ours, columns))


@pytest.mark.parametrize("options", GIST, ids=str)
@pytest.mark.parametrize("columns", [2, 3, 5])
def test_gist_with_any_number_of_negatives(options, columns):
    batch = embeddings(columns)
    theirs, ours = Guided(original_gist(cached=True, **options)), Guided(GISTEmbedLoss(None, GUIDE, **options))
    require_equal("embeddings", on(theirs, batch), on(ours, batch))


@pytest.mark.parametrize("options", [{}, {"positive_margin": 2.0, "negative_margin": -1.0}], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_mega_batch_margin(options, rows):
    batch = embeddings(2, rows)
    require_equal("embeddings", on(OnEmbeddings(**options), batch), on(MegaBatchMarginLoss(**options), batch))


def test_mega_batch_margin_in_mini_batches():
    margins = {"positive_margin": 1.5, "negative_margin": -1.0}
    theirs = original.MegaBatchMarginLoss(MODEL, mini_batch_size=3, **margins)
    ours = MegaBatchMarginLoss(MODEL, **margins, execution=GradCache(mini_batch_size=3))
    require_equal("cached", cached(MODEL, theirs, 2), through(MODEL, ours, 2))


def original_symmetric(cached=False, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if cached:
            return original.CachedMultipleNegativesSymmetricRankingLoss(MODEL, mini_batch_size=3, **options)
        return original.MultipleNegativesSymmetricRankingLoss(MODEL, **options)


@pytest.mark.parametrize("columns", [2, 3, 5])
def test_forms_of_multiple_negatives_ranking(columns):
    batch = embeddings(columns)
    symmetric = on(MultipleNegativesSymmetricRankingLoss(), batch)
    require_equal("symmetric", on(original.MultipleNegativesRankingLoss(None, **SYMMETRIC), batch), symmetric)
    gte = on(original.MultipleNegativesRankingLoss(None, **GTE), batch)
    require_equal("GTE", gte, on(ImprovedContrastiveLoss(), batch))


def test_symmetric_by_name_and_cached():
    ours = MultipleNegativesSymmetricRankingLoss(MODEL, scale=5.0)
    expected = through(MODEL, original_symmetric(scale=5.0))
    require_equal("by name", expected, through(MODEL, ours))
    ours.execution = GradCache(mini_batch_size=3)
    require_equal("cached", cached(MODEL, original_symmetric(cached=True, scale=5.0)), through(MODEL, ours))


PAIRS = {
    "gist": (Guided(original_gist(cached=True)), Guided(GISTEmbedLoss(None, GUIDE)), 3),
    "mega": (OnEmbeddings(), MegaBatchMarginLoss(), 2),
    "symmetric": (
        original.MultipleNegativesRankingLoss(None, **SYMMETRIC),
        MultipleNegativesSymmetricRankingLoss(),
        2,
    ),
    "gte": (original.MultipleNegativesRankingLoss(None, **GTE), ImprovedContrastiveLoss(), 3),
}


@pytest.mark.parametrize("rows", [5, 300])
@pytest.mark.parametrize("name", PAIRS)
def test_float32_is_as_near_to_the_truth(name, rows):
    require_as_near(*PAIRS[name], rows=rows)


def errors(loss, columns, truth):
    """Of the value and of the gradient, by what is true."""
    found = on(loss, [column.clone().requires_grad_() for column in columns])
    pairs = [torch.cat([gradient.double().flatten() for gradient in each.gradients]) for each in (found, truth)]
    apart, largest = (pairs[0] - pairs[1]).abs().max(), pairs[1].abs().max()
    return float((found.value.double() - truth.value).abs() / truth.value), float(apart / largest)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gist", "ranking", "symmetric"])
def test_half_precision_costs_ours_its_rounding_and_the_original_the_gradient(name, dtype):
    """Of a nearly solved batch: of embeddings in half precision for GIST, under autocast for the others."""
    theirs, ours = {
        "gist": (Guided(original_gist(True, temperature=0.05)), Guided(GISTEmbedLoss(None, GUIDE, temperature=0.05))),
        "ranking": (original.MultipleNegativesRankingLoss(None), MultipleNegativesRankingLoss()),
        "symmetric": PAIRS["symmetric"][:2],
    }[name]
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(8, DIM, generator=generator)
    columns = [first, first + 0.2 * torch.randn(8, DIM, generator=generator)]
    if name == "gist":
        columns = [column.to(dtype) for column in columns]
    truth = on(ours, [column.double().requires_grad_() for column in columns])
    with torch.autocast("cpu", dtype=dtype, enabled=name != "gist"):
        value, gradient = errors(ours, columns, truth)
        assert value < 1e-5
        assert gradient < (torch.finfo(dtype).eps if name == "gist" else 1e-5)
        value, gradient = errors(theirs, columns, truth)
        assert value > 0.03
        assert gradient > 0.01


# Deliberate differences: (class, case) -> the original and ours.


def duplicates():
    first = embeddings(2)[0].detach()
    batch = [first.clone().requires_grad_() for _ in range(2)]
    pair = [Guided(PAIRS["gist"][side].loss, [first, first]) for side in (0, 1)]
    return lambda: on(pair[0], batch), lambda: on(pair[1], batch)


def self_pairs():
    losses = original_gist(margin=-0.1), GISTEmbedLoss(MODEL, GUIDE, margin=-0.1)
    return lambda: through(MODEL, losses[0]), lambda: ours_through(losses[1], 3)


def labels(name):
    batch, given = embeddings(2), torch.zeros(5)
    theirs, ours, _ = PAIRS[name]
    return lambda: on(theirs, batch, given), lambda: on(ours, batch, given)


def labels_for_gist():
    features = [MODEL.preprocess(column) for column in TEXTS]
    losses = original_gist(), GISTEmbedLoss(MODEL, GUIDE)
    return tuple(
        lambda loss=loss: differentiate(loss(features, torch.zeros(4)), [*MODEL.parameters()]) for loss in losses
    )


def half_precision(name):
    def nearly_solved(loss):
        half = name == "gist"  # the others lose it under autocast alone
        first = embeddings(2, dtype=torch.bfloat16 if half else torch.float32)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not half):
            return on(loss, [first, (first.detach() * 1.1).requires_grad_()])

    theirs, ours, _ = PAIRS[name]
    return lambda: nearly_solved(theirs), lambda: nearly_solved(ours)


DIFFERENCES = {
    ("GISTEmbedLoss", "duplicates"): duplicates,
    ("GISTEmbedLoss", "half-precision"): lambda: half_precision("gist"),
    ("GISTEmbedLoss", "labels"): labels_for_gist,
    ("GISTEmbedLoss", "self-pairs"): self_pairs,
    ("GISTEmbedLoss", "zero-vectors"): lambda: one_zero_vector(*PAIRS["gist"]),
    ("MegaBatchMarginLoss", "labels"): lambda: labels("mega"),
    ("MegaBatchMarginLoss", "zero-vectors"): lambda: one_zero_vector(*PAIRS["mega"]),
    ("MultipleNegativesSymmetricRankingLoss", "half-precision"): lambda: half_precision("symmetric"),
    ("MultipleNegativesSymmetricRankingLoss", "labels"): lambda: labels("symmetric"),
    ("MultipleNegativesSymmetricRankingLoss", "zero-vectors"): lambda: one_zero_vector(*PAIRS["symmetric"]),
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_what_the_table_lists_differs(case):
    require_different(*DIFFERENCES[case]())
