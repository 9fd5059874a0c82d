"""Time and memory of losses by late interaction beside sentence-transformers 6.2: tokens of 128 dimensions.

Queries have 32 tokens, documents half to all of 128. Tokens take the place of the encoder, and what is measured is all
that comes after it, forward and backward. Times are those of one processor, taken in turns in one process: medians,
and the median of the paired ratios with a 95 % interval. Memory is the peak above the inputs of one step in a fresh
process.

    python tests/benchmarks/bench_multi_vector.py --cases margin-mse --batches 64 256
    python tests/benchmarks/bench_multi_vector.py --out docs/measurements/multi_vector.json
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from beside import Step, run_cases
from torch import Tensor, nn
from torch.nn.functional import normalize

QUERY, DOCUMENT, WIDTH = 32, 128, 128
TOP_K = 256


class Passing(nn.Module):
    """A model of either library whose features are its token embeddings."""

    family, similarity, dimension, normalized = "multi-vector", "maxsim", WIDTH, True

    def __init__(self, provider: str) -> None:
        super().__init__()
        self.provider = provider

    def forward(self, features: dict[str, Tensor], *_: Any, **__: Any) -> Any:
        if self.provider == "original":
            return features
        from losskit import Output

        return Output(features["token_embeddings"], features["attention_mask"])


@dataclass(frozen=True)
class Case:
    """A loss of both libraries on the same data.

    Args:
        theirs: makes the incumbent's loss, given its modules of losses and of scores, and a model.
        ours: the expression of ours.
        documents: columns of documents.
        batches: queries, the smallest first.
        labels: shape of the labels beside the batch; None: there are none.
    """

    theirs: Callable[[Any, Any, nn.Module], Any]
    ours: Any
    documents: int = 1
    batches: Sequence[int] = (64, 128, 256, 512)
    labels: int | None = None


RANKING = "multiple-negatives-ranking"
CASES = {
    RANKING: Case(lambda losses, _, model: losses.MultiVectorMultipleNegativesRankingLoss(model), RANKING),
    f"{RANKING}, 32 queries at a time": Case(
        lambda losses, _, model: losses.MultiVectorMultipleNegativesRankingLoss(model, score_mini_batch_size=32),
        RANKING,
        batches=(64, 256),
    ),
    f"{RANKING}, a negative": Case(
        lambda losses, _, model: losses.MultiVectorMultipleNegativesRankingLoss(model),
        RANKING,
        documents=2,
        batches=(64, 256),
    ),
    f"{RANKING}, xtr": Case(
        lambda losses, scoring, model: losses.MultiVectorMultipleNegativesRankingLoss(
            model, similarity_fct=scoring.XTRScores(TOP_K)
        ),
        {"name": RANKING, "similarity": {"name": "xtr", "top_k": TOP_K}},
        batches=(16, 64),
    ),
    "margin-mse": Case(
        lambda losses, _, model: losses.MultiVectorMarginMSELoss(model), "margin-mse", documents=2, labels=1
    ),
    "distill-kl-div, 8 documents": Case(
        lambda losses, _, model: losses.MultiVectorDistillKLDivLoss(model), "distill-kl-div", documents=8, labels=8
    ),
}


def prepare(name: str, provider: str, batch: int) -> Step:
    """One step on random tokens of unit length."""
    case = CASES[name]
    torch.manual_seed(batch)
    columns = [tokens(batch, QUERY, QUERY), *(tokens(batch, DOCUMENT, DOCUMENT // 2) for _ in range(case.documents))]
    for place, column in enumerate(columns):
        column["prompt"] = str(place)  # neither library joins columns of unlike prompts for the encoder
    labels = None if case.labels is None else torch.randn(batch, case.labels)
    loss = make(case, provider, Passing(provider))

    def step() -> Tensor:
        for column in columns:
            column["token_embeddings"].grad = None
        value: Tensor = loss(columns, labels)
        value.backward()
        return value

    return step


def tokens(items: int, most: int, fewest: int) -> dict[str, Any]:
    """Features of items of `fewest` to `most` tokens, of which the first has most."""
    counts = torch.randint(fewest, most + 1, (items, 1))
    counts[0] = most
    mask = torch.arange(most) < counts
    vectors = normalize(torch.randn(items, most, WIDTH), dim=-1).mul_(mask[..., None])
    return {"token_embeddings": vectors.requires_grad_(), "attention_mask": mask}


def make(case: Case, provider: str, model: nn.Module) -> nn.Module:
    """The loss of a provider."""
    if provider == "ours":
        from losskit import build

        return build(case.ours, model)
    from sentence_transformers.multi_vector_encoder import losses, scoring

    return case.theirs(losses, scoring, model)


if __name__ == "__main__":
    run_cases(__doc__, CASES, prepare)
