"""A plugin registry for the losses that train embedding, sparse, late-interaction and reranker models.

    losskit.find(kind="loss", encoder="dense")     what there is, importing none of it
    losskit.build("cosent", model)                 a loss, its options checked
    losskit.train("recipe.yaml")                   the main job
    losskit.load("runs/my-model").encode(texts)    what came of it

Every name is imported on first use; those that need no torch do not import it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # For type checkers only: at run time these four come through the entry-point group `losskit.api`.
    from losskit_plugins.training.api import train
    from losskit_plugins.training.callbacks import ProgressCallback
    from losskit_plugins.training.run import Run
    from losskit_plugins.training.trainer import Trainer

    from . import losses, math, testing
    from .building import build
    from .card import Card, Format
    from .errors import (
        AmbiguousError,
        DataError,
        LossError,
        LosskitError,
        ModelError,
        NotFoundError,
        PluginError,
        RecipeError,
    )
    from .execution import Direct, Execution, GradCache
    from .hooks import hookimpl
    from .loss import Loss
    from .output import Output, Tokens
    from .protocols import Encoder, LossProtocol, Regularizer, Similarity, Weighting
    from .registry import find, get
    from .saved import load
    from .score_loss import ScoreLoss
    from .spec import Spec
    from .wrapper import Wrapper

    __version__: str

__all__ = [
    "AmbiguousError",
    "Card",
    "DataError",
    "Direct",
    "Encoder",
    "Execution",
    "Format",
    "GradCache",
    "Loss",
    "LossError",
    "LossProtocol",
    "LosskitError",
    "ModelError",
    "NotFoundError",
    "Output",
    "PluginError",
    "ProgressCallback",
    "RecipeError",
    "Regularizer",
    "Run",
    "ScoreLoss",
    "Similarity",
    "Spec",
    "Tokens",
    "Trainer",
    "Weighting",
    "Wrapper",
    "__version__",
    "build",
    "find",
    "get",
    "hookimpl",
    "load",
    "losses",
    "math",
    "testing",
    "train",
]

_MODULES = {
    "building": "build",
    "card": "Card Format",
    "errors": "AmbiguousError DataError LossError LosskitError ModelError NotFoundError PluginError RecipeError",
    "execution": "Direct Execution GradCache",
    "hooks": "hookimpl",
    "loss": "Loss",
    "output": "Output Tokens",
    "protocols": "Encoder LossProtocol Regularizer Similarity Weighting",
    "registry": "find get",
    "saved": "load",
    "score_loss": "ScoreLoss",
    "spec": "Spec",
    "wrapper": "Wrapper",
}
HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
"""The submodule that each exported name lives in."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'losskit' has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("losskit")
    elif name in HOMES:
        value = getattr(importlib.import_module(f".{HOMES[name]}", __name__), name)
    elif name in ("losses", "math", "testing"):
        value = importlib.import_module(f".{name}", __name__)
    else:
        from .registry import api

        value = api(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
