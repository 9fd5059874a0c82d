"""Laws of round trips: a loss comes back from its configuration, from pickle and from what it owns."""

from __future__ import annotations

import json
import pickle

from safetensors.torch import load, save

from ..building import build
from ..registry import name_of
from .compare import Violation, require_equal
from .forward_laws import forward
from .law import IN_LOSSES, NotApplicable, law
from .subject import Subject

__all__ = ["config", "owned_state", "pickled"]


@law(
    9,
    "loss",
    "wrapper",
    "regularizer",
    "weighting",
    plain="a plain module's configuration is a note, from which nothing is built",
    cause="an option that get_config_dict leaves out or gives another value",
)
def config(subject: Subject) -> None:
    """`losskit.build` makes the same loss from `get_config_dict`, also after a way through JSON."""
    loss = subject.build()
    written = loss.get_config_dict()
    expression = json.loads(json.dumps({"name": name_of(type(loss)), **written}))
    again = build(expression, loss.model)
    if again.get_config_dict() != written:
        raise Violation("the configuration of the loss that it builds", written, again.get_config_dict())
    again.load_owned_state(loss.owned_state())
    require_equal("the loss built from its configuration", forward(subject, loss), forward(subject, again))


@law(
    9,
    *IN_LOSSES,
    cause="a lambda, generator, lock or open file among the attributes",
)
def pickled(subject: Subject) -> None:
    """A pickled loss, with its encoder, is the same loss."""
    loss = subject.build()
    again = pickle.loads(pickle.dumps(loss))
    require_equal("unpickled", forward(subject, loss), forward(subject, again))


@law(9, "loss", "wrapper", "regularizer", cause="a buffer that is not persistent, or a tensor that is no buffer")
def owned_state(subject: Subject) -> None:
    """What a loss owns comes back through safetensors."""
    loss = subject.build()
    if not loss.owned_state():
        raise NotApplicable("it owns no parameters or buffers")
    expected = forward(subject, loss)
    stored = save({key: tensor.contiguous() for key, tensor in subject.build().owned_state().items()})
    other = subject.build(seed=subject.seed + 1)
    other.model.load_state_dict(loss.model.state_dict())
    other.load_owned_state(load(stored))
    require_equal("with its state read back", expected, forward(subject, other))


LAWS = (config, pickled, owned_state)
