"""GIST: the laws, the formula in loops, what the guide removes, and what is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from losskit import LossError, Output
from losskit.testing import ToyEncoder, differentiate, laws, random_batch, require_equal, subjects
from losskit_plugins.losses.gist import GISTEmbedLoss, gist_embed, limits


def make(model=None, **options):
    return GISTEmbedLoss(model, ToyEncoder(seed=9), **{"temperature": 0.5, **options})


SUBJECTS = [
    *subjects(make, families=["dense", "sparse"], negatives=2, weights=True),
    *subjects(partial(make, margin=0.3), families=["dense"], lists=("positive", "negative"), weights=True),
    *subjects(partial(make, margin_strategy="relative", margin=0.1), families=["dense"], negatives=0),
    *subjects(partial(make, similarity="euclidean", contrast_anchors=False), families=["dense"]),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def cosine(a, b):
    return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()


def by_loops(student, teacher, counts, negatives, *, temperature, limit, anchors, positives, weights):
    """The loss of (anchors, positives, columns of negatives) as a student and a teacher embed them."""
    owners = [row for row, count in enumerate(counts) for _ in range(count)]
    total = 0.0
    for place, own in enumerate(owners):
        reach = limit(cosine(teacher[0][own], teacher[1][place]))
        logits = [cosine(student[0][own], student[1][place]) / temperature]

        def consider(row, column, i, j, reach=reach, logits=logits):
            if cosine(teacher[row][i], teacher[column][j]) < reach:
                logits.append(cosine(student[row][i], student[column][j]) / temperature)

        for other, owner in enumerate(owners):
            if owner != own:
                consider(0, 1, own, other)
                if positives:
                    consider(1, 1, place, other)
        for other in range(len(counts)):
            if anchors and other != own:
                consider(0, 0, own, other)
        for column in range(2, 2 + negatives):
            for other in range(len(student[column])):
                consider(0, column, own, other)
        loss = sum(logit.exp() for logit in logits).log() - logits[0]
        total = total + weights[own] * loss / counts[own]
    return total / len(counts)


@pytest.mark.parametrize("counts", [(1, 1, 1, 1), (2, 1, 3, 1)], ids=["one positive", "several"])
@pytest.mark.parametrize("negatives", [0, 1, 3])
@pytest.mark.parametrize(
    ("strategy", "margin"), [("absolute", 0.0), ("absolute", 0.2), ("absolute", -0.2), ("relative", 0.3)]
)
@pytest.mark.parametrize("contrast", [(True, True), (False, True), (True, False), (False, False)])
def test_equals_the_formula_in_loops(counts, negatives, strategy, margin, contrast):
    generator = torch.Generator().manual_seed(3)
    sizes = [len(counts), sum(counts), *[len(counts)] * negatives]
    student, teacher = (
        [torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in sizes] for dim in (4, 3)
    )
    leaves = [column.requires_grad_() for column in student]
    weights = torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=torch.float64)
    lists = [None, counts if max(counts) > 1 else None, *[None] * negatives]
    columns = [
        Output(mine, parts={"guide": Output(theirs)}, lists=each)
        for mine, theirs, each in zip(student, teacher, lists, strict=True)
    ]
    columns[0] = Output(student[0], parts={"guide": Output(teacher[0]), "weight": weights})
    loss = make(margin_strategy=strategy, margin=margin, contrast_anchors=contrast[0], contrast_positives=contrast[1])

    def limit(t):
        return t - margin if strategy == "absolute" else t - t.abs() * margin

    expected = by_loops(
        student, teacher, counts, negatives,
        temperature=0.5, limit=limit, anchors=contrast[0], positives=contrast[1], weights=weights,
    )  # fmt: skip
    got = loss.compute(columns, None, slice(0, len(counts)))
    require_equal("loops", differentiate(expected, leaves), differentiate(got, leaves))


def test_the_plain_function_keeps_the_positive_and_what_is_less_similar():
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    similar = torch.tensor([[0.5, 0.5, 0.41, 0.3]], dtype=torch.float64)
    expected = (scores[0, 0].exp() + scores[0, 3].exp()).log() - scores[0, 0]
    got = gist_embed(scores, similar, torch.tensor([0]), margin=0.1)
    torch.testing.assert_close(got, expected)


def test_a_relative_margin_lowers_the_limit_of_dissimilar_pairs_too():
    found = limits(torch.tensor([0.5, -0.5], dtype=torch.float64), margin=0.2, strategy="relative")
    torch.testing.assert_close(found, torch.tensor([0.4, -0.6], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_duplicates_are_no_negatives(dtype):
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(300, 64, generator=generator).to(dtype)
    same = [Output(column, parts={"guide": Output(column)}) for column in (texts, texts)]
    twice = [Output(column, parts={"guide": Output(column)}) for column in (texts.repeat(2, 1), texts.repeat(2, 1))]
    once = make().compute(same, None, slice(0, 300))
    torch.testing.assert_close(make(contrast_anchors=False).compute(twice, None, slice(0, 600)), twice_of(texts))
    assert once < torch.tensor(3.0).log() + torch.tensor(3 * 299.0).log()


def twice_of(texts):
    """Of texts that stand twice in a batch as anchors and positives: each has the others, twice each."""
    unit = texts.float() / texts.float().norm(dim=1, keepdim=True)
    if texts.dtype == torch.float64:
        unit = texts / texts.norm(dim=1, keepdim=True)
    logits = unit @ unit.T / 0.5
    others = logits.exp() - torch.diag(logits.diagonal().exp())
    return ((4 * others.sum(1) + logits.diagonal().exp()).log() - logits.diagonal()).mean()


def test_a_solved_batch_of_duplicates_costs_nothing():
    vectors = torch.eye(4, dtype=torch.float64)
    columns = [Output(vectors, parts={"guide": Output(vectors)}) for _ in range(2)]
    value = make(temperature=0.01).compute(columns, None, slice(0, 4))
    assert 0 <= value < 1e-10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_of_a_nearly_solved_batch(dtype):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(16, 64, generator=generator)
    second = first + 0.3 * torch.randn(16, 64, generator=generator)
    results = []
    for to in (dtype, torch.float64):
        leaves = [each.to(dtype).to(to).requires_grad_() for each in (first, second)]
        guides = [Output(each.to(dtype).double()) for each in (first, second)]
        columns = [Output(leaf, parts={"guide": known}) for leaf, known in zip(leaves, guides, strict=True)]
        value = make(temperature=0.08).compute(columns, None, slice(0, 16))
        results.append((value, torch.cat(torch.autograd.grad(value, leaves)).double()))
    (half, got), (full, expected) = results
    assert 1e-4 < full < 3e-3
    assert abs(half - full) < 0.02 * full
    assert (got - expected).abs().max() < 0.02 * expected.abs().max()


def test_a_guide_of_another_vocabulary_reads_the_texts():
    toy = ToyEncoder(seed=1)
    loss = GISTEmbedLoss(toy, ToyEncoder(dimension=5, seed=2), temperature=0.5)
    batch = random_batch(loss.formats[0], negatives=1)
    value = loss(batch.features(loss))
    with torch.no_grad():
        embedded = [
            Output(toy(toy.preprocess(list(column))).embedding, parts={"guide": other})
            for column in batch.columns
            for other in [loss.guide(loss.guide.preprocess(list(column)))]
        ]
        torch.testing.assert_close(value, loss.compute(embedded, None, slice(0, batch.rows)))
    value.backward()
    assert all(parameter.grad is None for parameter in loss.guide.parameters())


def test_refuses_what_it_cannot_use():
    for options, words in (
        ({"temperature": 0.0}, "GISTEmbedLoss.temperature: expected a positive number, got 0.0"),
        ({"margin_strategy": "none"}, "margin_strategy: expected 'absolute' or 'relative', got 'none'"),
    ):
        with pytest.raises(LossError, match=words):
            make(**options)
    with pytest.raises(LossError, match=r"GISTEmbedLoss.guide: expected an encoder that embeds, got None"):
        GISTEmbedLoss(None, None)
    with pytest.raises(LossError, match="expected an encoder of one vector per text, got one that is cross-encoder"):
        GISTEmbedLoss(None, ToyEncoder("cross-encoder"))
    with pytest.raises(LossError, match=r"expected its guide's embeddings in parts\['guide'\], got parts \[\]"):
        make().compute_loss_from_embeddings([torch.randn(3, 4)] * 2)


def test_one_row_without_negatives_is_named(caplog):
    toy = ToyEncoder()
    loss = make(toy)
    value = loss(random_batch(loss.formats[0], rows=1, negatives=0).features(loss))
    assert value == 0
    assert "one row without negatives has nothing to be told from" in caplog.text
