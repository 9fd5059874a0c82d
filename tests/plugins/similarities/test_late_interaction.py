"""MaxSim, its mean and XTR: the laws, the formulas in loops, and what has no tokens."""

from __future__ import annotations

import math

import pytest
import torch

import losskit
from losskit import LossError, Output, get
from losskit.math import late_interaction, maxsim, pairwise_maxsim, xtr
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects

NAMES = ("maxsim", "mean-maxsim", "xtr")
SUBJECTS = {
    f"{name}-{subject}": subject
    for name in NAMES
    for subject in subjects(get("similarity", name).load(), kind="similarity", families=["multi-vector"])
}
WIDTHS = [(3, 5), (4, 32), (2, 47)]
"""Tokens of queries and of documents: the maxima of more than 16 are found by halves."""


def records(query_tokens, document_tokens, queries=4, documents=5):
    """Tokens with masks: a query and a document have none that count, a document only its last."""
    generator = torch.Generator().manual_seed(query_tokens)
    made = []
    for items, tokens in ((queries, query_tokens), (documents, document_tokens)):
        embedding = torch.randn(items, tokens, 6, generator=generator, dtype=torch.float64)
        mask = torch.rand(items, tokens, generator=generator) < 0.7
        made.append(Output(embedding.requires_grad_(), mask))
    queries, documents = made
    queries.mask[1] = False
    documents.mask[2:4] = False
    documents.mask[3, -1] = True
    return queries, documents


def counted(record, item):
    """The tokens of an item that count."""
    return record.embedding[item][record.mask[item]]


def matches(a, b):
    """The best match of each token in each document, [tokens][documents], None in one without tokens."""
    inside = [counted(b, j) for j in range(b.items)]
    return [[torch.stack([x @ y for y in tokens]).max() if len(tokens) else None for tokens in inside] for x in a]


def thresholds(a, b, top_k):
    """The k-th highest similarity of each token with any token."""
    everything = [y for j in range(b.items) for y in counted(b, j)]
    return [sorted((x @ y for y in everything), reverse=True)[min(top_k, len(everything)) - 1] for x in a]


def in_loops(a, b, score):
    """All pairs, from the matches of a query in a document and from its thresholds."""
    rows = []
    for i in range(a.items):
        tokens = counted(a, i)
        found = matches(tokens, b)
        for j in range(b.items):
            own = [row[j] for row in found]
            empty = not b.mask[j].any()
            rows.append(score(tokens, own, empty, 0.0 * a.embedding.sum()))
    return torch.stack(rows).view(a.items, b.items)


def sum_of(tokens, own, empty, zero):
    return zero - 1e9 if empty else sum(own, zero)


def mean_of(tokens, own, empty, zero):
    return sum_of(tokens, own, empty, zero) / max(1, len(tokens))


def retrieved_of(b, top_k):
    def score(tokens, own, empty, zero):
        if empty:
            return zero - 1e9
        limits = thresholds(tokens, b, top_k)
        kept = [match for match, limit in zip(own, limits, strict=True) if match >= limit]
        return sum(kept, zero) / max(1, len(kept))

    return score


@pytest.mark.parametrize("law", laws("similarity"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


@pytest.mark.parametrize("small_blocks", [False, True])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("name", ["maxsim", "mean-maxsim", "xtr-1", "xtr-4", "xtr-1000"])
def test_equals_the_formula_in_loops(name, widths, small_blocks, monkeypatch):
    if small_blocks:
        monkeypatch.setattr(late_interaction, "CACHED", (5, 2 * widths[1], 7))
    a, b = records(*widths)
    name, _, top_k = name.partition("-") if name.startswith("xtr") else (name, "", "")
    similarity = get("similarity", name).load()(*([int(top_k)] if top_k else []))
    score = {"maxsim": sum_of, "mean-maxsim": mean_of}.get(name) or retrieved_of(b, int(top_k))
    weights = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    leaves = [a.embedding, b.embedding]
    expected = differentiate((in_loops(a, b, score) * weights).sum(), leaves)
    require_equal("all pairs", expected, differentiate((similarity(a, b) * weights).sum(), leaves))


def test_half_of_the_gradients_is_enough():
    a, b = records(3, 5)
    both = differentiate(maxsim(a.embedding, a.mask, b.embedding, b.mask).sin().sum(), [a.embedding, b.embedding])
    fixed = a.embedding.detach(), b.embedding.detach()
    of_a = differentiate(maxsim(a.embedding, a.mask, fixed[1], b.mask).sin().sum(), [a.embedding])
    of_b = differentiate(maxsim(fixed[0], a.mask, b.embedding, b.mask).sin().sum(), [b.embedding])
    assert torch.equal(of_a.gradients[0], both.gradients[0])
    assert torch.equal(of_b.gradients[0], both.gradients[1])


def test_equals_that_are_retrieved_together_count_together():
    """Copies of a document score alike, though only one of them would be the k-th."""
    query = torch.tensor([[[1.0, 0.0]]])
    documents = torch.tensor([[[0.5, 0.0]], [[2.0, 0.0]], [[0.5, 0.0]], [[0.1, 0.0]]])
    assert xtr(query, None, documents, None, top_k=2).tolist() == [[0.5, 2.0, 0.5, 0.0]]


@pytest.mark.parametrize("top_k", [1, 2, 5])
@pytest.mark.parametrize("place", ["query", "document"])
def test_xtr_leaves_no_nan_out(place, top_k):
    a, b = (torch.arange(12.0).reshape(2, 3, 2).add(shift).sin() for shift in (0, 5))
    (a if place == "query" else b)[0, 1] = math.nan
    scores = xtr(a, None, b, None, top_k=top_k)
    assert bool((scores[0] if place == "query" else scores[:, 0]).isnan().all())


@pytest.mark.parametrize("shape", [(0, 3, 2, 4), (3, 0, 2, 4), (3, 2, 0, 4), (3, 2, 3, 0)], ids=str)
def test_nothing_scores_nothing_and_stays_connected(shape):
    a, b = (torch.ones(*each, 2, requires_grad=True) for each in (shape[:2], shape[2:]))
    expected = -1e9 if shape[3] == 0 else 0.0
    for scores in (maxsim(a, None, b, None), xtr(a, None, b, None, top_k=2)):
        assert scores.shape == (shape[0], shape[2])
        assert bool((scores == expected).all())
        for gradient in torch.autograd.grad(scores.sum(), [a, b]):
            assert not gradient.any()


def test_pairs_without_documents_tokens():
    a, b = torch.ones(2, 3, 2, requires_grad=True), torch.ones(2, 0, 2, requires_grad=True)
    assert pairwise_maxsim(a, None, b, None).tolist() == [-1e9, -1e9]


@pytest.mark.parametrize(
    "scores",
    [pairwise_maxsim, maxsim, lambda *each: xtr(*each, top_k=2)],
    ids=["pairwise_maxsim", "maxsim", "xtr"],
)
def test_is_not_rounded_under_autocast(scores):
    a, b = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = scores(a, None, b, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(scores(a, None, b, None), expected)


def test_columns_of_embeddings_may_differ_in_length():
    loss = losskit.build("multiple-negatives-ranking", ToyEncoder("multi-vector"))
    columns = list(torch.randn(3, 4, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    columns[1], columns[2] = columns[1][:, :2], columns[2][:, :3]
    scores = torch.cat([maxsim(columns[0], None, each, None) for each in columns[1:]], 1)
    expected = (scores.logsumexp(1) - scores.diagonal()).mean()
    assert loss.compute_loss_from_embeddings(columns).item() == pytest.approx(expected.item(), rel=1e-12)


def test_every_kind_of_place_is_kept():
    """Documents of more than 256 tokens, whose places fit no byte."""
    a, b = torch.tensor([[[1.0]]]), torch.zeros(1, 300, 1)
    b[0, 299] = 2.0
    b.requires_grad_()
    maxsim(a, None, b, None).sum().backward()
    assert b.grad.nonzero().tolist() == [[0, 299, 0]]


def test_xtr_of_several_columns_retrieves_among_all_of_them():
    a, b = records(3, 5)
    others = [b[0:4], b[1:5]]
    similarity = get("similarity", "xtr").load()(top_k=2)
    together = similarity(a, Output.cat(others))
    expected = [[together[i, i], together[i, 4 + i]] for i in range(4)]
    got = similarity.pairwise_each(a, others)
    assert torch.equal(got, torch.stack([torch.stack(row) for row in expected]))


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True])
def test_refuses_a_top_k_that_is_no_number_of_tokens(top_k):
    with pytest.raises(LossError, match=r"XTRSimilarity.top_k: expected a whole number of 1 or more, got"):
        get("similarity", "xtr").load()(top_k)


def test_options_of_a_similarity_are_kept():
    loss = losskit.build({"name": "multiple-negatives-ranking", "similarity": {"name": "xtr", "top_k": 8}}, None)
    assert loss.scorer.top_k == 8
    assert loss.get_config_dict()["similarity"] == {"name": "xtr", "top_k": 8}
