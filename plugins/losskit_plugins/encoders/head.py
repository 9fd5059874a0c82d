"""What follows pooling, or works on the tokens before it: projections and normalisation."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from losskit.errors import ModelError

from .folder import require_safetensors, write_json
from .layout import Stage, refuse_unknown

__all__ = [
    "Normalization",
    "Projection",
    "activation_from",
    "name_of_activation",
    "read_step",
    "width_after",
    "with_normalization",
]

NAMES = ("module_input_name", "module_output_name")


class Normalization(nn.Module):
    """Scales vectors to unit length."""

    kind = "Normalize"

    def forward(self, vectors: Tensor) -> Tensor:
        """[..., d] to [..., d]; zeros stay zeros."""
        return nn.functional.normalize(vectors, p=2, dim=-1)

    @classmethod
    def read(cls, stage: Stage, values: str) -> Self:
        """The normalisation that a model folder describes.

        Args:
            stage: where.
            values: what it must work on, "sentence_embedding" or "token_embeddings".
        """
        config = stage.config()
        refuse_unknown(config, NAMES, str(stage.folder / "config.json"))
        _check_names(config, stage, values)
        return cls()

    def write(self, stage: Stage, values: str) -> None:
        """Describe it in a model folder."""
        write_json(stage.folder / "config.json", dict.fromkeys(NAMES, values), indent=4)


class Projection(nn.Module):
    """A linear layer with an activation, and optionally a residual connection.

    Args:
        in_features: width it takes.
        out_features: width it gives.
        bias: whether the linear layer has one.
        activation: applied to the linear layer's output.
        use_residual: add the input, projected without bias where the widths differ.
    """

    kind = "Dense"

    def __init__(
        self, in_features: int, out_features: int, bias: bool, activation: nn.Module, use_residual: bool = False
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.use_residual = in_features, out_features, use_residual
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation_function = activation
        if use_residual:
            same = in_features == out_features
            self.residual = nn.Identity() if same else nn.Linear(in_features, out_features, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        projected: Tensor = self.activation_function(self.linear(vectors))
        return projected + self.residual(vectors) if self.use_residual else projected

    @classmethod
    def read(cls, stage: Stage, values: str) -> Self:
        """The projection that a model folder holds.

        Args:
            stage: where.
            values: what it must work on, "sentence_embedding" or "token_embeddings".

        Raises:
            ModelError: it is described wrongly, or its weights are missing or of another shape.
        """
        config, culprit = stage.config(), str(stage.folder / "config.json")
        known = ("in_features", "out_features", "bias", "activation_function", "use_residual", *NAMES)
        refuse_unknown(config, known, culprit)
        _check_names(config, stage, values)
        activation = activation_from(str(config.get("activation_function", name_of_activation(nn.Tanh()))), culprit)
        require_safetensors(stage.folder)
        try:
            projection = cls(
                config["in_features"],
                config["out_features"],
                config.get("bias", True),
                activation,
                config.get("use_residual", False),
            )
            projection.load_state_dict(load_file(stage.folder / "model.safetensors"))
        except (KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
            got = " ".join(str(error).split())
            raise ModelError(str(stage.folder), expected="a Dense module", got=got) from error
        return projection

    def write(self, stage: Stage, values: str) -> None:
        """Put it in a model folder."""
        config = {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.linear.bias is not None,
            "activation_function": name_of_activation(self.activation_function),
            **dict.fromkeys(NAMES, values),
            **({"use_residual": True} if self.use_residual else {}),
        }
        write_json(stage.folder / "config.json", config, indent=4)
        weights = {name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}
        save_file(weights, stage.folder / "model.safetensors", metadata={"format": "pt"})


def read_step(stage: Stage, values: str) -> Normalization | Projection:
    """What a module of a model folder does with vectors.

    Args:
        stage: where, of one of the two kinds.
        values: what it must work on, "sentence_embedding" or "token_embeddings".
    """
    step: type[Normalization] | type[Projection] = Normalization if stage.kind == Normalization.kind else Projection
    return step.read(stage, values)


def width_after(steps: Iterable[nn.Module], width: int, place: str) -> int:
    """The width of vectors that went through all steps.

    Args:
        steps: in their order.
        width: that they begin with.
        place: what they follow.

    Raises:
        ModelError: a projection does not fit what comes before it.
    """
    for step in steps:
        if isinstance(step, Projection):
            if step.in_features != width:
                raise ModelError(
                    f"the projection after {place}", expected=f"{width} features", got=f"{step.in_features}"
                )
            width = step.out_features
    return width


def with_normalization(
    steps: Sequence[Normalization | Projection], normalize: bool | None
) -> list[Normalization | Projection]:
    """The steps with or without normalisation at the end; None: as they are."""
    ends = bool(steps) and isinstance(steps[-1], Normalization)
    if normalize is None or normalize == ends:
        return list(steps)
    return [*steps, Normalization()] if normalize else list(steps[:-1])


def activation_from(name: str, culprit: str) -> nn.Module:
    """An activation by the dotted name that a model folder gives; only torch's own are trusted.

    Args:
        name: such as "torch.nn.modules.activation.Tanh".
        culprit: the file it stands in.

    Raises:
        ModelError: it is no activation of torch.

    >>> activation_from("torch.nn.modules.activation.Tanh", "2_Dense/config.json")
    Tanh()
    """
    module, _, attribute = name.rpartition(".")
    found = None
    if module == "torch.nn" or module.startswith("torch.nn.modules."):
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError:
            found = None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelError(
            f"the activation in {culprit}",
            expected="a module class of torch.nn",
            got=repr(name),
            fix="losskit runs no code that a model folder names; write another activation",
        )
    try:
        return found()
    except TypeError as error:
        raise ModelError(
            f"the activation in {culprit}", expected="a class that takes no arguments", got=repr(name)
        ) from error


def name_of_activation(activation: nn.Module) -> str:
    """The dotted name of an activation, as model folders write it.

    >>> name_of_activation(nn.Tanh())
    'torch.nn.modules.activation.Tanh'
    """
    return f"{type(activation).__module__}.{type(activation).__qualname__}"


def _check_names(config: Mapping[str, Any], stage: Stage, values: str) -> None:
    """Refuse a module that works on something else than its place in the sequence allows."""
    source = config.get("module_input_name", "sentence_embedding")
    names = source, config.get("module_output_name") or source
    if names != (values, values):
        raise ModelError(
            f"{stage.label} in {stage.folder / 'config.json'}",
            expected=f"{values} in and out at this place",
            got=f"{names[0]} in and {names[1]} out",
        )
