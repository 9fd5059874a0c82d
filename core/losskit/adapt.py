"""What a loss's child `model` is seen as: an encoder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

from torch import nn

from . import registry
from .errors import LossError, LosskitError, brief, is_interrupt
from .execution import inner_module, uncompiled
from .features import token_ids
from .output import Output
from .protocols import Encoder, Features
from .spec import Spec

__all__ = ["DictEncoder", "view"]

logger = logging.getLogger("losskit")


def view(model: Any) -> Encoder:
    """A model as an encoder: itself, adopted by an encoder plugin, or a module that returns a dict.

    A wrapper for distributed training is looked through; execution knows how to call it. A compiled module is
    called as it is, unless it is compiled around such a wrapper.

    Raises:
        LossError: nothing that could encode.
    """
    plain = uncompiled(model)
    inner: Any = inner_module(plain)
    if plain is not model and inner is plain:
        return cast(Encoder, CompiledEncoder(model, view(plain)))
    if isinstance(inner, Encoder):
        return inner
    # What losskit brings is asked first, so that no plugin is imported for what losskit itself adopts.
    for spec in sorted(registry.find(kind="encoder", status="ok"), key=lambda spec: not spec.builtin):
        adopted = _adopted(inner, spec)
        if adopted is not None:
            return adopted
    if isinstance(inner, nn.DataParallel):
        raise LossError(
            "model in DataParallel",
            expected="one process per device",
            got="one process that cuts each batch, and with it the negatives",
            fix="start with torchrun, which uses DistributedDataParallel",
        )
    if isinstance(inner, nn.Module):
        return cast(Encoder, DictEncoder(inner))
    raise LossError(
        "model",
        expected="an encoder, a sentence-transformers model, or a module whose forward(features) returns a dict",
        got=type(model).__name__,
    )


def _adopted(model: Any, spec: Spec) -> Encoder | None:
    """What an encoder plugin makes of a model; None where it does not know it.

    Nor where it fails: a model that is none of its own may be all that somebody works with.
    """
    try:
        plugin: Any = spec.load()
    except LosskitError:
        return None  # what fails to load is reported by name where somebody asks for it
    try:
        adopted: Encoder | None = plugin.adapt(model)
    except BaseException as error:
        if spec.builtin or is_interrupt(error):
            raise
        _warn(f"{spec.provider}=={spec.version} {spec.target}: adapt raises {brief(error)}")
        return None
    return adopted


@cache
def _warn(message: str) -> None:
    """Say it once: models are looked at in every step."""
    logger.warning("%s", message)


class DictEncoder:
    """A module whose `forward(features)` returns a dict, seen as an encoder.

    The dict holds `sentence_embedding`, `token_embeddings` with `attention_mask`, or `scores`. What else an
    encoder knows is read off the module's attributes; without them it is dense and of unknown dimension.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def family(self) -> str:
        """The module's own, else dense."""
        return str(getattr(self.module, "family", "dense"))

    @property
    def dimension(self) -> int | None:
        """The module's own, else unknown."""
        dimension: int | None = getattr(self.module, "dimension", None)
        return dimension

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return getattr(self.__dict__["module"], name)
        except AttributeError:
            if name in _OPTIONAL:
                raise
            raise LossError(
                f"{type(self.__dict__['module']).__name__}.{name}",
                expected="an attribute of the model, which a loss asks for",
                got="none",
                fix=f"set model.{name}",
            ) from None

    def __call__(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Encode by calling the module on a copy of the features."""
        made = self.module(dict(features))
        if isinstance(made, Output):
            return made
        if not isinstance(made, Mapping):
            raise LossError(
                f"{type(self.module).__name__}.forward", expected="a dict of tensors", got=type(made).__name__
            )
        parts = self._parts({**features, **made}, needs) if needs else {}
        layers = tuple(made["layers"]) if "layers" in needs else ()
        if made.get("sentence_embedding") is not None:
            return Output(made["sentence_embedding"], layers=layers, parts=parts)
        if made.get("token_embeddings") is not None:
            mask = made["attention_mask"].bool()
            return Output(made["token_embeddings"], mask=mask, layers=layers, parts=parts)
        if made.get("scores") is not None:
            return Output(_scores(made["scores"]), layers=layers, parts=parts)
        raise LossError(
            f"{type(self.module).__name__}.forward",
            expected="sentence_embedding, token_embeddings with attention_mask, or scores",
            got=f"{sorted(made)}",
        )

    def _parts(self, found: Mapping[str, Any], needs: Sequence[str]) -> dict[str, Any]:
        """What was asked for beyond layers, from features and what the module made of them."""
        unmet = [need for need in needs if need not in found]
        if unmet:
            raise LossError(
                f"{type(self.module).__name__}.forward",
                expected=f"keys {', '.join(unmet)}",
                got=f"{sorted(found)}",
                fix="return them, or train the model without a wrapper other than DistributedDataParallel",
            )
        parts = {need: found[need] for need in needs if need != "layers"}
        if "input_ids" in needs:
            parts["input_ids"] = token_ids(found, getattr(self, "padding", {}))
        return parts


class CompiledEncoder:
    """What torch.compile made of a model: called as it is, and otherwise seen as the model was."""

    def __init__(self, module: nn.Module, plain: Encoder) -> None:
        self.plain = plain
        self.compiled = DictEncoder(module)

    def __getattr__(self, name: str) -> Any:
        if name in ("plain", "compiled"):
            raise AttributeError(name)
        return getattr(self.plain, name)

    def __call__(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Encode by the compiled module; what needs a look inside is left to the plain one."""
        return self.plain(features, needs) if needs else self.compiled(features)


_OPTIONAL = {
    *("take", "join", "lengths", "decode", "get_config_dict", "count_active"),
    *("padding", "transformer", "tokenizer", "max_length"),
}


def _scores(scores: Any) -> Any:
    """[n, 1] as [n]: a single score is no class."""
    return scores.squeeze(-1) if scores.ndim == 2 and scores.shape[1] == 1 else scores
