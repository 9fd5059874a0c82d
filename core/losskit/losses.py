"""Every registered loss and wrapper by its class's own name, third-party ones too, imported on first use.

>>> from losskit import losses
>>> "CoSENTLoss" in dir(losses)
True
"""

from __future__ import annotations

from . import registry
from .errors import NotFoundError


def __getattr__(name: str) -> type:
    if name.startswith("_"):
        raise AttributeError(f"module 'losskit.losses' has no attribute {name!r}")
    try:
        return registry.get("loss", name).load()
    except NotFoundError as error:
        raise AttributeError(str(error)) from error


def __dir__() -> list[str]:
    specs = [*registry.find(kind="loss"), *registry.find(kind="wrapper")]
    return sorted({spec.class_name for spec in specs if spec.status == "ok"})
