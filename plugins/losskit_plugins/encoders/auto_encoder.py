"""The sparse auto-encoder of CSR: dense vectors to a few active latents, and back by the same weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from losskit.errors import ModelError, RecipeError
from losskit.execution import world_size
from losskit.math import full_precision, inner_products, promoted

from .folder import require_safetensors, write_json
from .layout import Stage, refuse_unknown

__all__ = ["RECONSTRUCTIONS", "SparseAutoEncoder", "count_active"]

RECONSTRUCTIONS = ("backbone", "decoded_k", "decoded_4k", "decoded_aux", "decoded_k_pre_bias")
"""What it gives on request beside the codes."""
SETTINGS = ("input_dim", "hidden_dim", "k", "k_aux", "normalize", "dead_threshold")
WEIGHT, OLD_WEIGHT = "decoder.linear.weight", "encoder.weight"
"""What folders call the weight: two modules of sentence-transformers share it, and the file holds it once."""
ACTIVE = 1e-5
"""A latent above this is active."""
EPSILON = 1e-5
"""Added to the deviation that a vector is divided by."""


class _Scale(NamedTuple):
    """What brings vectors of mean 0 and deviation 1 back to where they were, [n, 1] each."""

    deviation: Tensor
    mean: Tensor


class SparseAutoEncoder(nn.Module):
    """Codes z = the k largest of relu(W (x - b) + c), and reconstructions W^T z + b.

    Whatever the precision of the encoder, it computes in float32 at least.

    Args:
        input_dim: width of the vectors.
        hidden_dim: number of latents.
        k: how many latents of a vector are kept at most.
        k_aux: how many dead latents reconstruct what the others leave over; 0: none.
        normalize: bring each vector to mean 0 and deviation 1 before.
        dead_threshold: a latent that was inactive in more training steps than this is dead.

    Raises:
        RecipeError: impossible numbers.

    >>> auto_encoder = SparseAutoEncoder(input_dim=2, hidden_dim=8, k=1)
    >>> codes, parts = auto_encoder(torch.tensor([[3.0, 4.0]]), ["decoded_k"])
    >>> codes.shape, parts["decoded_k"].shape
    (torch.Size([1, 8]), torch.Size([1, 2]))
    """

    kind = "SparseAutoEncoder"

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int = 512,
        k: int = 8,
        k_aux: int = 512,
        normalize: bool = False,
        dead_threshold: int = 30,
    ) -> None:
        super().__init__()
        _check_sizes(hidden_dim, k, k_aux, dead_threshold)
        self.input_dim, self.hidden_dim, self.k, self.k_aux = input_dim, hidden_dim, k, k_aux
        self.normalize, self.dead_threshold = normalize, dead_threshold
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(hidden_dim, input_dim), a=math.sqrt(5)))
        self.pre_bias = nn.Parameter(torch.zeros(input_dim))
        self.latent_bias = nn.Parameter(torch.zeros(hidden_dim))
        self.stats_last_nonzero: Tensor
        self.register_buffer("stats_last_nonzero", torch.zeros(hidden_dim, dtype=torch.long))

    def forward(
        self, vectors: Float[Tensor, "n d"], needs: Sequence[str] = (), k: int | None = None
    ) -> tuple[Float[Tensor, "n hidden"], dict[str, Float[Tensor, "n d"]]]:
        """The codes, and those of `RECONSTRUCTIONS` that are asked for; without `k_aux` no "decoded_aux".

        Args:
            vectors: [n, d].
            needs: names of parts.
            k: how many latents to keep; None: as many as it is made for.
        """
        vectors = promoted(vectors)
        with full_precision(vectors):
            latents, scale = self._latents(vectors)
            if not set(RECONSTRUCTIONS).intersection(needs):
                return _scattered(*_largest(latents, k or self.k), latents), {}
            # The k largest are among the 4 k largest.
            values, places = _largest(latents, 4 * self.k)
            found, among = _largest(values, k or self.k)
            codes = _scattered(found, places.gather(1, among), latents)
            decoded = self._decoded(codes, scale)
            bias = _rescaled(promoted(self.pre_bias), scale)
            parts = {
                "backbone": vectors,
                "decoded_k": decoded + bias,
                "decoded_4k": self._decoded(_scattered(values, places, latents), scale) + bias,
                "decoded_k_pre_bias": decoded,
            }
            if self.k_aux:
                parts["decoded_aux"] = self._of_dead(latents, scale)
        return codes, {name: parts[name] for name in needs if name in parts}

    def count_active(self, codes: Sequence[Float[Tensor, "n hidden"]]) -> None:
        """Note which latents are active in the codes of a training step."""
        count_active(self.stats_last_nonzero, codes)

    @classmethod
    def read(cls, stage: Stage, **options: Any) -> Self:
        """The auto-encoder that a model folder holds.

        Args:
            stage: where.
            options: of the constructor, instead of what the folder says; those that are None are not.

        Raises:
            ModelError: it is described wrongly, or its weights are missing or of another shape.
            RecipeError: impossible numbers.
        """
        config, weights = stage.config(), stage.folder / "model.safetensors"
        refuse_unknown(config, SETTINGS, str(stage.folder / "config.json"))
        require_safetensors(stage.folder)
        given = {name: value for name, value in options.items() if value is not None}
        try:
            made = cls(**{**config, **given})
            found = load_file(weights)
            found["weight"] = found.pop(WEIGHT) if WEIGHT in found else found.pop(OLD_WEIGHT)
            made.load_state_dict(found)
        except (KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
            raise ModelError(
                str(stage.folder), expected="a SparseAutoEncoder", got=" ".join(str(error).split())
            ) from error
        return made

    def write(self, stage: Stage) -> None:
        """Put it in a model folder."""
        write_json(stage.folder / "config.json", {name: getattr(self, name) for name in SETTINGS}, indent=4)
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}
        tensors[WEIGHT] = tensors.pop("weight")
        save_file(tensors, stage.folder / "model.safetensors", metadata={"format": "pt", OLD_WEIGHT: WEIGHT})

    def _latents(self, vectors: Tensor) -> tuple[Tensor, _Scale | None]:
        """[n, hidden] before anything is dropped, and how the vectors were scaled for them."""
        scale = None
        if self.normalize:
            scale = _Scale(*torch.std_mean(vectors, 1, keepdim=True))
            vectors = (vectors - scale.mean) / (scale.deviation + EPSILON)
        latents = _encoded(vectors - promoted(self.pre_bias), promoted(self.weight))
        return latents.add_(promoted(self.latent_bias)), scale

    def _decoded(self, codes: Tensor, scale: _Scale | None) -> Tensor:
        """[n, d] without the bias."""
        decoded = _decoded(codes, promoted(self.weight))
        return decoded if scale is None else torch.addcmul(scale.mean, decoded, scale.deviation)

    def _of_dead(self, latents: Tensor, scale: _Scale | None) -> Tensor:
        """What the largest dead latents decode to, which is to be the residual: around 0, not around the mean."""
        bias = promoted(self.pre_bias)
        dead = (self.stats_last_nonzero > self.dead_threshold).nonzero().squeeze(1)
        if not len(dead):
            return _rescaled(bias, scale).expand(len(latents), -1)
        codes = latents[:, dead]
        values, places = _largest(codes, self.k_aux)
        decoded = _decoded(_scattered(values, places, codes), promoted(self.weight)[dead]) + bias
        return _rescaled(decoded, scale)


@torch.no_grad()
def count_active(steps: Int[Tensor, " hidden"], codes: Sequence[Float[Tensor, "n hidden"]]) -> None:
    """Count, in place, the steps since each latent was active, alike in all processes; 1 where it is now."""
    active = torch.stack([(each > ACTIVE).any(0) for each in codes]).any(0)
    if world_size() > 1:
        anywhere = active.to(torch.uint8)
        dist.all_reduce(anywhere, dist.ReduceOp.MAX)
        active = anywhere.bool()
    steps.masked_fill_(active, 0).add_(1)


def _rescaled(vectors: Tensor, scale: _Scale | None) -> Tensor:
    """Differences of scaled vectors as they are between the original ones."""
    return vectors if scale is None else vectors * scale.deviation


def _largest(values: Float[Tensor, "n m"], count: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The largest of each row, in no order, and their places."""
    found = values.topk(min(count, values.shape[1]), dim=1, sorted=False)
    return found.values, found.indices


def _scattered(values: Tensor, places: Tensor, like: Tensor) -> Tensor:
    """The positive values at their places among zeros, [n, m]."""
    return torch.zeros_like(like).scatter_(1, places, values.relu())


def _encoded(vectors: Float[Tensor, "n d"], weight: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """x W^T, whose gradients are formed by the fastest products too."""
    latents: Tensor = _Product.apply(vectors, weight, False)  # type: ignore[no-untyped-call]
    return latents


def _decoded(codes: Float[Tensor, "n m"], weight: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
    """z W, as well."""
    decoded: Tensor = _Product.apply(codes, weight, True)  # type: ignore[no-untyped-call]
    return decoded


class _Product(torch.autograd.Function):
    """Either way the gradient of the weight lies in memory as the weight does: they are summed, and are large."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, decodes: bool) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.decodes = decodes
        return inner_products(rows, weight.T if decodes else weight)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        of_rows = of_weight = None
        if ctx.needs_input_grad[0]:
            of_rows = inner_products(upstream, weight if ctx.decodes else weight.T)
        if ctx.needs_input_grad[1]:
            latents, vectors = (rows, upstream) if ctx.decodes else (upstream, rows)
            of_weight = inner_products(latents.T, vectors.T)
        return of_rows, of_weight, None


def _check_sizes(hidden_dim: int, k: int, k_aux: int, dead_threshold: int) -> None:
    lowest = {"hidden_dim": (hidden_dim, 4), "k": (k, 1), "k_aux": (k_aux, 0), "dead_threshold": (dead_threshold, 0)}
    for name, (value, least) in lowest.items():
        if type(value) is not int or value < least:
            raise RecipeError(name, expected=f"{least} or more", got=repr(value))
    if 4 * k > hidden_dim:
        raise RecipeError(
            "k", expected=f"at most {hidden_dim // 4}, as 4 k of the {hidden_dim} latents are kept too", got=str(k),
            fix="lower k, or raise hidden_dim",
        )  # fmt: skip
