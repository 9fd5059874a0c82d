"""Laws of encoders in training: features are padded, cut and joined, and gradients flow through any execution."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import LossError
from ..execution import Direct, Execution, GradCache
from ..features import can_share, count, join, lengths, take, unload, width
from ..loss import Loss
from ..output import widen
from ..protocols import Encoder, Features
from ..registry import get
from ..validation.findings import NotApplicable, Violation
from .batches import Batch
from .compare import Result, require_equal
from .encoding import CLOSE, ROLES, in_batch, module_of, ready, record, require_rows, rows
from .forward_laws import PLAIN, SAME_FORWARDS, forward
from .law import law
from .subject import Subject

__all__ = ["encoder_gradient", "encoder_in_a_loss", "encoder_padding", "encoder_take_join"]

NEARBY = 0.02
"""How far a parameter is moved to see whether records depend on it."""
TOKENS = 40
EXECUTIONS: tuple[Execution, ...] = (
    Direct(),
    Direct(tokens=TOKENS),
    GradCache(mini_batch_size=2),
    GradCache(mini_batch_tokens=TOKENS),
)


@law(5, "encoder", cause="tokens are pooled or attended to without the attention mask")
def encoder_padding(subject: Subject) -> None:
    """Padded to the width of a longer item, an item has the record that it has alone."""
    encoder, items = ready(subject)
    padded = 0
    for role in ROLES:
        longest = width(encoder.preprocess(items, role=role))
        for item in items:
            features = encoder.preprocess([item], role=role)
            wide = _widened(features, longest, getattr(encoder, "padding", {}))
            padded += width(wide) - width(features)
            with torch.no_grad():
                require_rows(f"{role}: {item!r}, padded", rows(encoder(features)), rows(encoder(wide)))
    if not padded:
        raise NotApplicable("its features have no attention_mask [n, t], or always the same width")


def _widened(features: Features, tokens: int, padding: Mapping[str, float]) -> Features:
    def of(key: str, value: Any) -> Any:
        by_token = isinstance(value, Tensor) and value.ndim >= 2 and value.shape[1] == width(features)
        return widen(value, tokens, padding.get(key, 0)) if by_token else value

    return {key: of(key, value) for key, value in features.items()}


@law(3, "encoder", cause="features that are not indexed by item, without take and join of its own")
def encoder_take_join(subject: Subject) -> None:
    """Features are cut and joined without a change of records, as execution does it."""
    encoder, items = ready(subject)
    for role in ROLES:
        features = encoder.preprocess(items, role=role)
        found = _counted(encoder, features)
        if found != len(items) or len(lengths(encoder, features)) != len(items):
            raise Violation(f"{role}: the number of items of features", len(items), found)
        with torch.no_grad():
            whole = rows(encoder(features))
            for places in ([1, 2, 3][: len(items) - 1], [len(items) - 1, 0]):
                part = encoder(take(encoder, features, places))
                require_rows(
                    f"{role}: items {places} cut from features", [whole[place] for place in places], rows(part)
                )
            tail = slice(1, len(items))
            require_rows(f"{role}: items from the second on", whole[1:], rows(encoder(take(encoder, features, tail))))
            pieces = [take(encoder, features, [0]), features]
            if getattr(encoder, "join", None) is not None or can_share(*pieces):
                joined = encoder(join(encoder, pieces))
                require_rows(f"{role}: the first item joined with all", [whole[0], *whole], rows(joined))


def _counted(encoder: Encoder, features: Features) -> int:
    try:
        return count(encoder, features)
    except LossError as error:
        expected = "tensors with one entry per item, or methods take, join and lengths"
        raise Violation("its features cannot be cut", expected, str(error)) from error


@law(None, "encoder", cause="a detach(), no_grad() or .data on the way from the parameters to the records")
def encoder_gradient(subject: Subject) -> None:
    """In training, every parameter that changes the records gets a gradient, and all gradients are finite."""
    encoder, items = ready(subject)
    module = module_of(encoder).train()
    features = [unload(each)[0] for each in in_batch(encoder, items)]

    def objective() -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(subject.seed)  # the same dropout each time
            found = [encoder(each).embedding for each in features]
        return torch.stack([each.double().sin().sum() for each in found if each is not None]).sum()

    value = objective()
    if not value.requires_grad:
        raise Violation("the records are not connected to the parameters", "a gradient", "none")
    named = [(name, each) for name, each in module.named_parameters() if each.requires_grad]
    found = torch.autograd.grad(value, [each for _, each in named], allow_unused=True)
    for (name, parameter), gradient in zip(named, found, strict=True):
        if gradient is not None and not gradient.isfinite().all():
            raise Violation(f"the gradient of {name}", "finite numbers", "NaN or infinity")
        idle = gradient is None or not gradient.any()
        if idle and abs(_moved(objective, parameter) - float(value.detach())) > CLOSE:
            raise Violation(f"records depend on {name}, which gets no gradient", "a gradient", "none")


def _moved(objective: Callable[[], Tensor], parameter: Tensor) -> float:
    """The objective at a parameter a little elsewhere."""
    kept = parameter.detach().clone()
    step = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * NEARBY
    try:
        with torch.no_grad():
            parameter.add_(step.to(parameter))
            return float(objective().detach())
    finally:
        parameter.data.copy_(kept)


@law(
    3, "encoder", cause="records that depend on which items share a forward, or draws that no generator of torch makes"
)
def encoder_in_a_loss(subject: Subject) -> None:
    """A loss trains it, and merging, cutting, packing and gradient caching change neither value nor gradient."""
    encoder, items = ready(subject)
    module_of(encoder)
    expected = _trained(subject, encoder, items, PLAIN, steady=True)
    if not any(gradient.any() for gradient in expected.gradients):
        raise Violation("a loss does not train it", "a gradient", "zeros")
    other = replace(subject, seed=subject.seed + 1)
    if torch.equal(expected.value, _trained(other, encoder, items, PLAIN, steady=True).value):
        for execution in EXECUTIONS:
            got = _trained(subject, encoder, items, execution, steady=True)
            require_equal(f"in a loss, {execution!r} beside {PLAIN!r}", expected, got, CLOSE)
        _require_descent(subject, encoder, items, expected)
    for plain, cached in SAME_FORWARDS:
        expected = _trained(subject, encoder, items, plain)
        try:
            got = _trained(subject, encoder, items, cached)
        except LossError:
            continue  # refused by name, as buffers are that count forwards
        require_equal(f"in a loss in train mode, {cached!r} beside {plain!r}", expected, got, CLOSE)


def _trained(
    subject: Subject, encoder: Encoder, items: Sequence[Any], execution: Execution, steady: bool = False
) -> Result:
    """The value and gradients of a loss on a copy of the encoder in train mode; steady: its parts in that of
    evaluation, so that dropout rests.
    """
    loss, labels = _loss_on(copy.deepcopy(encoder), items)
    loss.execution = execution
    loss.model.train()
    if steady:
        for part in loss.model.modules():
            part.training = part is loss.model
    batch = Batch([items], ["text"], labels)
    return forward(subject, loss, batch, in_batch(loss.encoder, items))


def _loss_on(encoder: Encoder, items: Sequence[Any]) -> tuple[Loss, Tensor | None]:
    """A loss that fits the encoder, and labels."""
    options: dict[str, Any] = {}
    if encoder.family == "cross-encoder":
        scores = record(encoder, items).embedding
        assert scores is not None
        name, classes = ("binary-cross-entropy", 2) if scores.ndim == 1 else ("cross-entropy", scores.shape[1])
        return get("loss", name).load()(encoder), torch.arange(len(items)) % classes
    if encoder.family != "multi-vector":
        options = {"similarity": "cosine", "scale": 5.0}  # a softmax that is far from certain
    return get("loss", "multiple-negatives-ranking").load()(encoder, **options), None


def _require_descent(subject: Subject, encoder: Encoder, items: Sequence[Any], found: Result) -> None:
    """A small step against the gradient lowers the loss."""
    norm = torch.stack([gradient.double().norm() for gradient in found.gradients]).norm()
    for size in (1e-1, 1e-2, 1e-3):
        stepped = copy.deepcopy(encoder)
        trained = [each for each in module_of(stepped).parameters() if each.requires_grad]
        with torch.no_grad():
            for parameter, gradient in zip(trained, found.gradients, strict=True):
                parameter.sub_(gradient * (size / norm).to(gradient))
        if _trained(subject, stepped, items, PLAIN, steady=True).value < found.value:
            return
    raise Violation("steps against the gradient do not lower the loss", f"less than {float(found.value):g}", "no less")


LAWS = (encoder_padding, encoder_take_join, encoder_gradient, encoder_in_a_loss)
