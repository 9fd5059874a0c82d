"""The training section of a recipe as transformers' training arguments."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from losskit.errors import RecipeError
from losskit.recipe import Training

__all__ = ["training_arguments"]


def training_arguments(training: Training, checkpoints: Path) -> TrainingArguments:
    """Arguments of transformers, those left out as losskit has them.

    A checkpoint per epoch, of which the last is kept; evaluation only before and after; no reports, no bars.

    Args:
        training: the section of the recipe.
        checkpoints: where checkpoints go.

    Raises:
        RecipeError: an unknown name, or a value that transformers refuses.
    """
    known = {item.name for item in fields(TrainingArguments) if item.init}
    given = training.arguments(known, devices=int(os.environ.get("WORLD_SIZE", "1")))
    defaults: dict[str, Any] = {
        "eval_strategy": "steps" if "eval_steps" in given else "no",
        "save_strategy": "steps" if "save_steps" in given else "epoch",
        "save_total_limit": 1,
        "disable_tqdm": True,
        "ddp_broadcast_buffers": False,
    }
    try:
        return TrainingArguments(output_dir=str(checkpoints), **(defaults | given))
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()
        raise RecipeError(
            "training", expected="arguments that transformers accepts", got=reason[0] if reason else ""
        ) from error
