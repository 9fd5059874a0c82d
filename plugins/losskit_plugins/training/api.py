"""`losskit.train`: from a recipe to a run."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losskit.origin import PROVENANCE, read_origins
from losskit.recipe import Recipe, read_recipe

from . import quickstart
from .job import Job, check, check_names
from .run import Run
from .workspace import Workspace

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = ["train", "train_from"]

RecipeLike = str | os.PathLike[str] | Mapping[str, Any]


def train(
    recipe: RecipeLike | Sequence[RecipeLike] | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    trusted: Collection[str] = (),
    trust_remote_code: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    **overrides: Any,
) -> Run:
    """Train a model as a recipe says; without one the built-in quickstart.

    Names, files, columns and options are checked before anything heavy is imported, and what is written appears
    under `output` only when it is whole.

    Args:
        recipe: a YAML file, a mapping, or several of them merged left to right.
        resume: go on from the last checkpoint of a run into the same output.
        force: replace what is in the output.
        trusted: `module:Class` and `file.py:Class` that recipe files may name.
        trust_remote_code: let the encoder run code that its model folder brings.
        callbacks: further callbacks of transformers for the trainer.
        overrides: sections of the recipe, or `**{"training.epochs": 2}`; merged last.

    Returns:
        The finished run: its path, metrics and encoder.

    Raises:
        LosskitError: what is wrong, where and how to mend it; nothing is left half-written.
    """
    given = [] if recipe is None else [recipe] if isinstance(recipe, str | os.PathLike | Mapping) else [*recipe]
    return train_from(
        given,
        overrides,
        resume=resume,
        force=force,
        trusted=trusted,
        trust_remote_code=trust_remote_code,
        callbacks=callbacks,
    )


def train_from(
    sources: Sequence[RecipeLike],
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    resume: bool = False,
    force: bool = False,
    trusted: Collection[str] = (),
    trust_remote_code: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> Run:
    """As `train`, with overrides also as `key=value`.

    Without sources, overrides that bring neither `encoder` nor `data` change the quickstart.
    """
    options = {"trust_remote_code": trust_remote_code, "callbacks": callbacks}
    if sources or {"encoder", "data"} & {str(key).partition("=")[0].partition(".")[0] for key in overrides}:
        recipe = read_recipe(sources, overrides, allowed_targets=trusted)
        workspace = Workspace(Path(recipe.output), resume, force)
        _check_plugins(workspace)
        found = check(recipe)
        workspace.check(_inputs(sources, recipe))
        with workspace:
            return Job(recipe, recipe, found, workspace, **options).run()
    shown = _quickstart(quickstart.OUTPUT, overrides)
    output = Path(shown.output)
    shown = _quickstart(output, overrides)
    # Only where nobody has chosen the place: a run under a name of its own is somebody's.
    replaceable = quickstart.is_quickstart if output == quickstart.OUTPUT else lambda run: False
    workspace = Workspace(output, resume, force, replaceable)
    _check_plugins(workspace)
    check_names(shown)
    workspace.check()
    with workspace:
        if workspace.main:
            quickstart.write_inputs(workspace.folder)
        workspace.wait()
        recipe = _quickstart(workspace.folder, overrides)
        with quickstart.one_thread():
            return Job(recipe, shown, check(recipe), workspace, **options).run()


def _check_plugins(workspace: Workspace) -> None:
    """Refuse to go on with a run whose plugins are not there, and warn of those that have changed."""
    earlier = workspace.earlier(PROVENANCE)
    for origin in read_origins(earlier.parent) if earlier is not None else ():
        origin.spec()


def _inputs(sources: Sequence[RecipeLike], recipe: Recipe) -> list[Path]:
    """The paths that a run is made from; a model's name may be one, of a guide as well."""
    parts = [part.path for part in (recipe.data.train, recipe.data.eval) if part is not None]
    named = [*sources, *parts, *_models(recipe.encoder), *_models(recipe.loss)]
    return [Path(each) for each in named if not isinstance(each, Mapping)]


def _models(expression: Any) -> Iterator[str]:
    """What stands as `model` anywhere in an expression."""
    if isinstance(expression, Mapping):
        if isinstance(expression.get("model"), str):
            yield expression["model"]
        for each in expression.values():
            yield from _models(each)


def _quickstart(run: Path, overrides: Sequence[str] | Mapping[str, Any]) -> Recipe:
    return read_recipe([quickstart.recipe(run), {"output": str(quickstart.OUTPUT)}], overrides)
