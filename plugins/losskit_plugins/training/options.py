"""The training section of a recipe: its options checked, and as transformers' training arguments."""

from __future__ import annotations

import ast
import os
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losskit.errors import PluginError, RecipeError
from losskit.recipe import Training

if TYPE_CHECKING:
    from transformers import TrainingArguments

__all__ = ["check_training", "training_arguments"]


@cache
def known_arguments() -> frozenset[str]:
    """The names of transformers' training arguments, read from its source: importing it takes seconds.

    >>> {"bf16", "warmup_steps"} <= known_arguments()
    True
    """
    found = PathFinder.find_spec("transformers")
    if found is None or not found.submodule_search_locations:
        raise PluginError("transformers", expected="to be installed", got="nothing", fix="pip install losskit")
    source = Path(found.submodule_search_locations[0], "training_args.py").read_text(encoding="utf-8")
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    body = next(node.body for node in classes if node.name == "TrainingArguments")
    names = (node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name))
    return frozenset(name for name in names if not name.startswith("_"))


def check_training(training: Training) -> None:
    """Refuse names that nothing knows; imports nothing heavy.

    Raises:
        RecipeError: an unknown option, or a batch size that cannot be.
    """
    _given(training)


def training_arguments(training: Training, checkpoints: Path) -> TrainingArguments:
    """Arguments of transformers, those left out as losskit has them.

    A checkpoint per epoch, of which the last is kept; evaluation only before and after; no reports, no bars.

    Args:
        training: the section of the recipe.
        checkpoints: where checkpoints go.

    Raises:
        RecipeError: an unknown name, or a value that transformers refuses.
    """
    import torch
    from transformers import TrainingArguments

    given = _given(training)
    defaults: dict[str, Any] = {
        "eval_strategy": "steps" if "eval_steps" in given else "no",
        "save_strategy": "steps" if "save_steps" in given else "epoch",
        "save_total_limit": 1,
        "disable_tqdm": True,
        "use_cpu": not torch.accelerator.is_available(),
    }
    try:
        return TrainingArguments(output_dir=str(checkpoints), **(defaults | given))
    except (ValueError, TypeError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecipeError("training", expected="arguments that transformers accepts", got=reason) from error


def _given(training: Training) -> dict[str, Any]:
    return training.arguments(known_arguments(), devices=int(os.environ.get("WORLD_SIZE", "1")))
