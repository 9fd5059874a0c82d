"""What a run consists of beside its checkpoints, written into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from losskit.origin import PROVENANCE
from losskit.recipe import Recipe

from .curves import draw_curves
from .model_card import model_card
from .owned import save_owned
from .provenance import fingerprint
from .run import METRICS_FILE, RECIPE_FILE, write_json
from .trainer import Trainer
from .workspace import Workspace

__all__ = ["write_results"]


def write_results(
    trainer: Trainer,
    recipe: Recipe,
    metrics: Mapping[str, Any],
    origin: Mapping[str, Any],
    data: Mapping[str, Sequence[Path]],
    rows: Mapping[str, int],
    workspace: Workspace,
) -> None:
    """Write model, loss, recipe, metrics, provenance, curves and model card.

    Args:
        trainer: after the training.
        recipe: filled in.
        metrics: as in metrics.json.
        origin: as in provenance.json, without the data.
        data: the files of each part of the data, as they lie now.
        rows: how many were read of each part.
        workspace: where the run is written.
    """
    folder, encoder, loss = workspace.folder, trainer.encoder, trainer.model
    encoder.save(folder)
    save_owned(loss, folder)
    (folder / RECIPE_FILE).write_text(recipe.to_yaml(), encoding="utf-8")
    write_json(folder / METRICS_FILE, metrics)
    files = {part: [fingerprint(path, str(workspace.final(path))) for path in paths] for part, paths in data.items()}
    origin = {**origin, "data": {part: {"rows": rows[part], "files": files[part]} for part in files}}
    write_json(folder / PROVENANCE, origin)
    draw_curves(trainer.state.log_history, metrics["before"], metrics["after"], folder / "curves.png")
    card = model_card(
        name=workspace.output.name,
        encoder=encoder,
        loss=loss,
        recipe=recipe,
        metrics=metrics,
        provenance=origin,
        incumbent=(folder / "config_sentence_transformers.json").is_file(),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
