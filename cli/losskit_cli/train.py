"""`losskit train`: a model from a recipe, or the built-in quickstart."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .output import say, write_json, write_table, write_text

if TYPE_CHECKING:
    from losskit_plugins.training.run import Run

__all__ = ["train"]

OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE | KEY=VALUE]...",
            help="Recipe files, merged left to right, and overrides such as training.epochs=2; none: the quickstart",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is in the output")] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET", help="module:Class or file.py[:Class] that a recipe file may name"),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the encoder's model folder brings")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes and end")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Metrics as JSON")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No messages but warnings, and no bar")] = False,
) -> None:
    """Train a model from a recipe, or the built-in quickstart."""
    if schema:
        _write_schema()
        return
    given = arguments or []
    overrides = [each for each in given if OVERRIDE.match(each)]
    recipes = [each for each in given if not OVERRIDE.match(each)]
    from losskit_plugins.training.api import train_from

    from .progress import Progress

    speaks = os.environ.get("RANK", "0") == "0"  # one of the processes that torchrun starts
    with Progress(quiet or not speaks) as progress:
        run = train_from(
            recipes,
            overrides,
            resume=resume,
            force=force,
            trusted=plugin or (),
            trust_remote_code=trust_remote_code,
            callbacks=progress.callbacks,
        )
    if speaks:
        _write_run(run, as_json)
    if speaks and not quiet:
        say(run.sentence)


def _write_schema() -> None:
    from losskit.recipe import Recipe

    write_text(json.dumps(Recipe.schema(), indent=2))


def _write_run(run: Run, as_json: bool) -> None:
    from losskit_plugins.training.run import rows_of_metrics

    if as_json:
        write_json({"path": str(run.path), **run.metrics})
        return
    rows: Sequence[Sequence[str]] = rows_of_metrics(run.before, run.after)
    if rows:
        write_table(["metric", "before", "after", "change"], rows)
