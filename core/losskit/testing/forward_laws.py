"""Laws of whole batches: from features through the encoder to the gradients of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..clock import Clock
from ..execution import Direct, Execution, GradCache
from ..loss import Loss
from ..protocols import Features
from ..validation.process_state import difference, process_state
from .batches import Batch
from .compare import SINGLE, Result, Violation, differentiate, require_equal, total
from .law import IN_LOSSES, NotApplicable, law
from .subject import Subject

__all__ = ["dropout", "executions", "forward", "order", "padding", "untouched"]

PLAIN = Direct(merge=False)
TOKENS = 24
ENCODES = "a plain module encodes by itself, so there is no execution to choose"
EXECUTIONS: tuple[Execution, ...] = (
    Direct(),
    Direct(tokens=TOKENS),
    Direct(rows=2),
    GradCache(mini_batch_size=4),
    GradCache(mini_batch_tokens=TOKENS),
    GradCache(mini_batch_size=5, merge=False, rows=1),
)
SAME_FORWARDS = (
    (Direct(tokens=TOKENS), GradCache(mini_batch_tokens=TOKENS)),
    (Direct(merge=False), GradCache(mini_batch_size=1000, merge=False)),
    (Direct(merge=True), GradCache(mini_batch_size=1000, merge=True)),
)
"""Pairs that run the same forwards: in one graph, and again in the backward."""


def forward(
    subject: Subject, loss: Loss, batch: Batch | None = None, features: Sequence[Features] | None = None
) -> Result:
    """The value of a training forward, and the gradients of all parameters."""
    batch = batch or subject.batch
    loss.set_clock(Clock(step=1, progress=0.5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.seed)
        value = loss(batch.features(loss) if features is None else features, batch.flat_labels)
        # A replay must not depend on the random state that the backward finds.
        torch.rand(3)
        found = differentiate(value, [p for p in loss.parameters() if p.requires_grad])
        return replace(found, rounding=SINGLE) if subject.plain else found


@law(3, "loss", "wrapper", plain=ENCODES, cause="a term that depends on which rows are computed together")
def executions(subject: Subject) -> None:
    """Merging, packing by tokens, slices of rows and gradient caching change nothing."""
    expected = _executed(subject, PLAIN)
    for execution in EXECUTIONS:
        require_equal(repr(execution), expected, _executed(subject, execution))


@law(3, "loss", "wrapper", plain=ENCODES, cause="random numbers that are drawn outside of the encoder")
def dropout(subject: Subject) -> None:
    """With dropout, gradient caching equals an ordinary backward through the same forwards."""
    for plain, cached in SAME_FORWARDS:
        require_equal(
            f"{cached!r} with dropout", _executed(subject, plain, dropout=0.3), _executed(subject, cached, dropout=0.3)
        )


def _executed(subject: Subject, execution: Execution, dropout: float = 0.0) -> Result:
    loss = subject.build(dropout=dropout)
    loss.execution = execution
    return forward(subject, loss)


@law(
    5,
    *IN_LOSSES,
    cause="a row compared with its neighbours, or the first one treated unlike others",
)
def order(subject: Subject) -> None:
    """The order of rows does not matter."""
    loss = subject.build()
    expected = forward(subject, loss)
    rows = list(range(subject.batch.rows))
    drawn = [part.drawn for _, part in loss.tree()]
    if subject.family == "cross-encoder":  # pairs are drawn before, given as many columns as there are of texts
        sizes = [len(rows)] * len(subject.batch.columns)
        drawn += [part.draw(torch.Generator(), sizes) for _, part in loss.tree()]
    if any(isinstance(each, Tensor) for each in drawn):
        raise NotApplicable("its draws belong to rows")
    for permuted in (rows[::-1], rows[2:] + rows[:2]):
        got = forward(subject, subject.build(), subject.batch.take(permuted))
        require_equal(f"rows in the order {permuted}", expected, got)


@law(
    5,
    *IN_LOSSES,
    cause="widths of features that are counted, without the mask",
)
def padding(subject: Subject) -> None:
    """More padding of the features changes nothing."""
    loss = subject.build()
    expected = forward(subject, loss)
    padded = [_padded(features) for features in subject.batch.features(loss)]
    require_equal("with three more positions of padding", expected, forward(subject, subject.build(), features=padded))


def _padded(features: Features) -> Features:
    def widened(value: Any) -> Any:
        if not (isinstance(value, Tensor) and value.ndim == 2):
            return value
        return nn.functional.pad(value, (0, 3))

    return {key: widened(value) for key, value in features.items()}


@law(
    6,
    *IN_LOSSES,
    cause="an operation in place, eval() or train(), a seed, the global generator, or another setting of the process",
)
def untouched(subject: Subject) -> None:
    """A call leaves its inputs, the model's mode and what a whole process shares as they were, such as generators."""
    for training in (True, False):
        loss = subject.build()
        for child in loss.children():  # of a plain module also what stands for its model
            child.train(training)
        batch = subject.batch
        features, labels = batch.features(loss), batch.flat_labels
        before, shared = _state(loss, features, labels), process_state()
        with torch.set_grad_enabled(training):
            value = total(loss(features, labels))
        if training:
            value.backward()
        after, now = _state(loss, features, labels), process_state()
        for name, was in before.items():
            if was != after[name]:
                told = [f"{each!r:.60}" for each in (was, after[name])]
                raise Violation(f"a call changes {name}", *(told if told[0] != told[1] else ("as before", "changed")))
        for name, state in shared.items():
            if state != now[name]:
                raise Violation(f"a call changes {name}", "as before", difference(state, now[name]))


def _state(loss: Loss, features: Sequence[Features], labels: Tensor | None) -> dict[str, Any]:
    tensors = {
        f"feature {key!r} of column {place}": value
        for place, each in enumerate(features)
        for key, value in each.items()
        if isinstance(value, Tensor)
    }
    tensors |= {} if labels is None else {"the labels": labels}
    weights = loss.model.state_dict()
    return {
        **{name: tensor.tolist() for name, tensor in tensors.items()},
        **{f"the version of {name}": tensor._version for name, tensor in {**tensors, **weights}.items()},
        "the keys of its features": [sorted(each) for each in features],
        "the mode of the model": [part.training for part in loss.modules()],
    }


LAWS = (executions, dropout, order, padding, untouched)
