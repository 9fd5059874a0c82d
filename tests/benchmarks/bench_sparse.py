"""Time and memory of sparse encoders and their losses beside sentence-transformers 6.2, a vocabulary of 30,522.

A case is measured forward and backward on random numbers or tokens; neither library tokenises. Times are those of one
processor, taken in turns in one process: medians, and the median of the paired ratios with a 95 % interval. Memory is
the peak above the inputs of one step in a fresh process.

    python tests/benchmarks/bench_sparse.py --cases head --batches 8 16
    python tests/benchmarks/bench_sparse.py --out docs/measurements/sparse.json
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from beside import Step, run_cases
from torch import Tensor, nn

VOCABULARY = 30_522


@dataclass(frozen=True)
class Case:
    """What is measured.

    Args:
        prepare: makes a step of a provider, "original" or "ours", at a batch.
        batches: in texts, the smallest first.
    """

    prepare: Callable[[str, int], Step]
    batches: Sequence[int]


CASES: dict[str, Case] = {}
"""By name: what is measured, a comma, and what varies."""


# Head: a masked-language model of one layer, and its logits pooled.

HIDDEN, LARGEST_TEXT = 384, 256


def masked_language_model() -> nn.Module:
    """A transformer of one layer, as wide as all-MiniLM's, with random weights."""
    from transformers import BertConfig, BertForMaskedLM

    size = {"hidden_size": HIDDEN, "intermediate_size": 4 * HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 12}
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, max_position_embeddings=LARGEST_TEXT, **size))


def theirs_pooled(pooling: str, model: nn.Module) -> Callable[[dict[str, Tensor]], Tensor]:
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    pool = SpladePooling(pooling_strategy=pooling)

    def embed(features: dict[str, Tensor]) -> Tensor:
        logits = model(**features).logits
        mask = features["attention_mask"]
        return pool({"token_embeddings": logits, "attention_mask": mask})["sentence_embedding"]

    return embed


def ours_pooled(pooling: str, model: nn.Module) -> Callable[[dict[str, Tensor]], Tensor]:
    from losskit_plugins.encoders.splade_pooling import SpladePooling

    pool = SpladePooling(pooling)
    return lambda features: pool(model, features, features["attention_mask"])


def head(pooling: str, tokens: int, provider: str, batch: int) -> Step:
    """Texts from half to the full length to embeddings, and the gradient of every weight."""
    model = masked_language_model()
    embed = {"original": theirs_pooled, "ours": ours_pooled}[provider](pooling, model)
    lengths = torch.randint(tokens // 2, tokens + 1, (batch, 1))
    lengths[0] = tokens
    ids = torch.randint(0, VOCABULARY, (batch, tokens))
    features = {"input_ids": ids, "attention_mask": (torch.arange(tokens) < lengths).long()}
    gradient = torch.randn(batch, VOCABULARY)

    def step() -> Tensor:
        model.zero_grad()
        embedding = embed(features)
        embedding.backward(gradient)
        return embedding

    return step


CASES |= {
    f"head, {pooling}, {tokens} tokens": Case(partial(head, pooling, tokens), (8, 16, 32, 64))
    for pooling in ("max", "sum")
    for tokens in (64, LARGEST_TEXT)
}


# Flops and splade: embeddings as they are, of which a sixth of the entries is active.


def sparse_columns(columns: int, batch: int) -> list[Tensor]:
    """Embeddings that ask for gradients."""
    torch.manual_seed(batch)
    return [(torch.randn(batch, VOCABULARY) - 1).relu_().requires_grad_() for _ in range(columns)]


def flops(threshold: int | None, provider: str, batch: int) -> Step:
    """The penalty of documents; with a threshold of those above it, which are about half of them."""
    (embeddings,) = sparse_columns(1, batch)
    if provider == "original":
        from sentence_transformers.sparse_encoder.losses import FlopsLoss

        penalty = FlopsLoss(None, threshold).compute_loss_from_embeddings
    else:
        from losskit_plugins.regularizers.flops import flops

        penalty = partial(flops, threshold=threshold)

    def step() -> Tensor:
        embeddings.grad = None
        value = penalty(embeddings)
        value.backward()
        return value

    return step


class Known(nn.Module):
    """A model that gives each column its embeddings."""

    def __init__(self, columns: list[Tensor]) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, features: dict[str, int]) -> dict[str, Tensor]:
        return {"sentence_embedding": self.columns[features["column"]]}


WEIGHTS = {"document_regularizer_weight": 3e-5, "query_regularizer_weight": 5e-5}


def splade(columns: int, provider: str, batch: int) -> Step:
    """A contrastive loss with the penalties of queries and documents."""
    embeddings = sparse_columns(columns, batch)
    if provider == "original":
        from sentence_transformers.sparse_encoder import losses

        model = Known(embeddings)
        theirs = losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model), **WEIGHTS)
        compute = partial(theirs, [{"column": column} for column in range(columns)])
    else:
        from losskit import build

        inner = {"name": "multiple-negatives-ranking", "similarity": "dot"}
        compute = partial(build({"name": "splade", **WEIGHTS, "loss": inner}).compute_loss_from_embeddings, embeddings)

    def step() -> dict[str, Tensor]:
        for column in embeddings:
            column.grad = None
        found = compute()
        sum(found.values()).backward()
        return found

    return step


BATCHES = (16, 32, 64, 128, 256)
CASES |= {
    "flops": Case(partial(flops, None), BATCHES),
    "flops, threshold": Case(partial(flops, VOCABULARY * 159 // 1000), BATCHES),
    "splade, pairs": Case(partial(splade, 2), BATCHES),
    "splade, one negative": Case(partial(splade, 3), BATCHES),
}


# CSR: dense embeddings of a frozen encoder, 1,536 latents, and a contrastive loss on their codes.

WIDTH, LATENTS = 384, 4 * 384


class Coded(nn.Module):
    """A model whose features are dense embeddings, and which codes them."""

    family, similarity, dimension, normalized = "sparse", "dot", LATENTS, False

    def __init__(self, auto_encoder: nn.Module) -> None:
        super().__init__()
        self.auto_encoder = auto_encoder


class TheirsCoded(Coded):
    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.auto_encoder(dict(features))


class OursCoded(Coded):
    def forward(self, features: dict[str, Tensor], needs: Sequence[str] = ()) -> Any:
        from losskit import Output

        codes, parts = self.auto_encoder(features["sentence_embedding"], needs)
        return Output(codes, parts=parts)

    def count_active(self, embeddings: Sequence[Tensor]) -> None:
        self.auto_encoder.count_active(embeddings)

    def preprocess(self, texts: Any, **options: Any) -> Any:
        raise NotImplementedError

    encode = save = load = adapt = preprocess


def csr(k: int, dead: int, provider: str, batch: int) -> Step:
    """Pairs of embeddings to codes, reconstructions and the loss, and the gradient of every weight."""
    sizes = (WIDTH, LATENTS, k, WIDTH // 2)
    torch.manual_seed(batch)
    features = [{"sentence_embedding": torch.randn(batch, WIDTH)} for _ in range(2)]
    if provider == "original":
        from sentence_transformers.sparse_encoder import losses
        from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

        model: nn.Module = TheirsCoded(SparseAutoEncoder(*sizes))
        loss = losses.CSRLoss(model)
    else:
        from losskit import build
        from losskit_plugins.encoders.auto_encoder import SparseAutoEncoder

        model = OursCoded(SparseAutoEncoder(*sizes))
        loss = build({"name": "csr", "loss": "multiple-negatives-ranking"}, model)
    counts = torch.zeros(LATENTS, dtype=torch.long)
    counts[:dead] = 1 << 40

    def step() -> dict[str, Tensor]:
        model.zero_grad()
        model.auto_encoder.stats_last_nonzero.copy_(counts)
        found = loss(features, None)
        sum(found.values()).backward()
        return found

    return step


def reconstruction(provider: str, batch: int) -> Step:
    """Embeddings and what they were reconstructed as, of two columns, to the three terms."""
    names = ("backbone", "decoded_k", "decoded_4k", "decoded_aux", "decoded_k_pre_bias")
    torch.manual_seed(batch)
    columns = [{name: torch.randn(batch, WIDTH).requires_grad_() for name in names} for _ in range(2)]
    leaves = [part for column in columns for part in column.values()]
    if provider == "original":
        from sentence_transformers.sparse_encoder.losses import CSRReconstructionLoss

        theirs = {name: name.replace("decoded", "decoded_embedding") for name in names}
        theirs["backbone"] = "sentence_embedding_backbone"
        outputs = [{theirs[name]: part for name, part in column.items()} for column in columns]
        compute = partial(CSRReconstructionLoss(None).compute_loss_from_embeddings, outputs)
    else:
        from losskit import Output, build

        records = [Output(None, parts=column) for column in columns]
        compute = partial(build("csr-reconstruction").compute, records, None, slice(0, batch))

    def step() -> dict[str, Tensor]:
        for leaf in leaves:
            leaf.grad = None
        found = compute()
        sum(found.values()).backward()
        return found

    return step


CASES |= {
    "csr-reconstruction": Case(reconstruction, (64, 256, 1024, 4096, 16384)),
    **{f"csr, k {k}": Case(partial(csr, k, 0), (64, 256, 1024)) for k in (32, 64, 256)},
    "csr, k 32, half dead": Case(partial(csr, 32, LATENTS // 2), (64, 256, 1024)),
}


def prepare(name: str, provider: str, batch: int) -> Step:
    """One step of a case."""
    return CASES[name].prepare(provider, batch)


if __name__ == "__main__":
    run_cases(__doc__, CASES, prepare)
