"""From the tokens of a masked-language model to weights of terms: SPLADE's pooling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from losskit.errors import ModelError
from losskit.modes import in_evaluation

from .folder import write_json
from .layout import Stage, refuse_unknown
from .vocabulary_head import ACTIVATIONS, Activation, TermPooling, pool_logits, pool_terms

__all__ = ["POOLINGS", "SpladePooling", "ends_linearly"]

POOLINGS = ("max", "sum")
PROBE = 8
"""How many tokens tell whether a model's logits are what they seem."""
ROUNDING = 1e-5
"""How far apart, of the largest, two products of the same numbers may be in float32."""


class SpladePooling(nn.Module):
    """Runs a masked-language model and pools its logits over tokens.

    Args:
        pooling: of tokens.
        activation: of logits, before the pooling.
    """

    kind = "SpladePooling"

    def __init__(self, pooling: TermPooling = "max", activation: Activation = "relu") -> None:
        super().__init__()
        self.pooling, self.activation = pooling, activation

    def forward(
        self, model: PreTrainedModel, inputs: Mapping[str, Tensor], mask: Tensor, linear: bool = True
    ) -> Tensor:
        """Inputs [n, t] of a model to embeddings [n, terms].

        Args:
            model: with a vocabulary head.
            inputs: that its forward takes.
            mask: [n, t], 1 where a token counts.
            linear: whether `ends_linearly(model)`, so that its logits need not be formed as a whole.
        """
        options: dict[str, Any] = {"pooling": self.pooling, "activation": self.activation}
        if not linear:
            return pool_logits(model(**inputs, return_dict=True).logits, mask, **options)
        with _taken_by_head(model, through=False) as hidden:
            model(**inputs, return_dict=True)
        head = _head(model)
        return pool_terms(hidden[0], mask, head.weight, head.bias, **options)

    @classmethod
    def read(cls, stage: Stage) -> Self:
        """The pooling that a model folder describes.

        Raises:
            ModelError: it is none that there is.
        """
        config, culprit = stage.config(), str(stage.folder / "config.json")
        widths = ("embedding_dimension", "word_embedding_dimension")
        refuse_unknown(config, ("pooling_strategy", "activation_function", *widths), culprit)
        activation = str(config.get("activation_function", "relu")).replace("_", "-")
        found = {"pooling_strategy": config.get("pooling_strategy", "max"), "activation_function": activation}
        for (key, value), known in zip(found.items(), (POOLINGS, ACTIVATIONS), strict=True):
            if value not in known:
                raise ModelError(f"{key} in {culprit}", expected=f"one of {', '.join(known)}", got=repr(value))
        return cls(*found.values())

    def write(self, stage: Stage) -> None:
        """Describe it in a model folder."""
        activation = self.activation.replace("-", "_")
        config = {"pooling_strategy": self.pooling, "activation_function": activation, "embedding_dimension": None}
        write_json(stage.folder / "config.json", config, indent=4)

    def extra_repr(self) -> str:
        """Shown in the module's representation."""
        return f"pooling={self.pooling!r}, activation={self.activation!r}"


def ends_linearly(model: PreTrainedModel) -> bool:
    """Whether logits are the output embeddings' product with what they take, and nothing more; seen on a few tokens.

    Raises:
        ModelError: the model gives no logits of a vocabulary.
    """
    head = _head(model)
    if head is None:
        raise ModelError(
            type(model).__name__,
            expected="a model with a vocabulary head",
            got="one without",
            fix="give a masked-language model, as AutoModelForMaskedLM loads it",
        )
    inputs = torch.arange(min(PROBE, len(head.weight)), device=head.weight.device)[None]
    with torch.no_grad(), in_evaluation(model), _taken_by_head(model, through=True) as taken:
        logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs), return_dict=True).logits
    if type(head).forward is not nn.Linear.forward or len(taken) != 1 or taken[0].shape[:2] != inputs.shape:
        return False
    expected = head(taken[0])
    rounding = max(ROUNDING, 2 * torch.finfo(expected.dtype).eps)
    return expected.shape == logits.shape and bool((expected - logits).abs().max() <= rounding * logits.abs().max())


def _head(model: PreTrainedModel) -> Any:
    """Its output embeddings; None where it has none."""
    return model.get_output_embeddings()  # type: ignore[no-untyped-call]


@contextmanager
def _taken_by_head(model: PreTrainedModel, through: bool) -> Iterator[list[Tensor]]:
    """Collects what the output embeddings take, [n, t, dim]; unless it is let through, they multiply nothing."""
    taken: list[Tensor] = []

    def take(head: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        taken.append(arguments[0])
        return arguments if through else (arguments[0][:, :0],)

    hook = _head(model).register_forward_pre_hook(take)
    try:
        yield taken
    finally:
        hook.remove()
