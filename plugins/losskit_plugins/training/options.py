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


PLAIN: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "list": (list, tuple),
    "dict": (dict,),
    "None": (type(None),),
}
"""What annotations of transformers that need none of its classes take."""

COUNTS = ("per_device_train_batch_size", "gradient_accumulation_steps")


@cache
def known_arguments() -> dict[str, str]:
    """Transformers' training arguments and their annotations, read from its source: importing it takes seconds.

    >>> known_arguments()["bf16"]
    'bool'
    """
    found = PathFinder.find_spec("transformers")
    if found is None or not found.submodule_search_locations:
        raise PluginError("transformers", expected="to be installed", got="nothing", fix="pip install losskit")
    source = Path(found.submodule_search_locations[0], "training_args.py").read_text(encoding="utf-8")
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    body = next(node.body for node in classes if node.name == "TrainingArguments")
    fields = (node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name))
    return {node.target.id: ast.unparse(node.annotation) for node in fields if not node.target.id.startswith("_")}  # type: ignore[union-attr]


def check_training(training: Training, evaluates: bool = True) -> None:
    """Refuse names that nothing knows and values that cannot be; imports nothing heavy.

    Args:
        training: the section of the recipe.
        evaluates: whether the recipe has data to evaluate on.

    Raises:
        RecipeError: an unknown option, one of a wrong type, a batch size that cannot be, or evaluations of nothing.
    """
    given = _given(training)
    for name, value in training.arguments_given.items():
        _check_value(name, value)
    if not evaluates and given.get("eval_strategy", "steps" if "eval_steps" in given else "no") != "no":
        raise RecipeError(
            "training: evaluations while it runs", expected="data.eval to evaluate on", got="none",
            fix="give data.eval, or leave out eval_every, eval_steps and eval_strategy",
        )  # fmt: skip


def _check_value(name: str, value: Any) -> None:
    kinds = [each.partition("[")[0] for each in known_arguments()[name].split(" | ")]
    wrong = set(kinds) <= PLAIN.keys() and not any(type(value) in PLAIN[kind] for kind in kinds)
    if wrong:
        raise RecipeError(f"training.{name}", expected=" or ".join(kinds), got=repr(value))
    if name in COUNTS and value < 1:
        raise RecipeError(f"training.{name}", expected="a positive integer", got=repr(value))


def training_arguments(training: Training, checkpoints: Path) -> TrainingArguments:
    """Arguments of transformers, those left out as losskit has them.

    A checkpoint per epoch, of which the last is kept; evaluation only before and after; no reports, no bars.

    Args:
        training: the section of the recipe.
        checkpoints: where checkpoints go.

    Raises:
        RecipeError: an unknown name, a value that transformers refuses, or reports to what is not installed.
    """
    import torch
    from transformers import TrainingArguments
    from transformers.integrations import get_reporting_integration_callbacks

    given = _given(training)
    defaults: dict[str, Any] = {
        "eval_strategy": "steps" if "eval_steps" in given else "no",
        "save_strategy": "steps" if "save_steps" in given else "epoch",
        "save_total_limit": 1,
        "disable_tqdm": True,
        "use_cpu": not torch.accelerator.is_available(),
    }
    try:
        arguments = TrainingArguments(output_dir=str(checkpoints), **(defaults | given))
    except (ValueError, TypeError, RuntimeError) as error:
        raise _refusal("training", "arguments that transformers accepts", error) from error
    try:
        for reporter in get_reporting_integration_callbacks(arguments.report_to):
            reporter()  # as the trainer will, after all that is loaded first
    except (ValueError, RuntimeError, ImportError) as error:
        raise _refusal("training.report_to", "services whose packages are installed", error) from error
    return arguments


def _refusal(option: str, expected: str, error: Exception) -> RecipeError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return RecipeError(option, expected=expected, got=reason)


def _given(training: Training) -> dict[str, Any]:
    return training.arguments(known_arguments(), devices=int(os.environ.get("WORLD_SIZE", "1")))
