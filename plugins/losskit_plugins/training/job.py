"""A training from checked recipe to finished run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from losskit import build
from losskit.errors import DataError, RecipeError
from losskit.hooks import Hooks
from losskit.origin import PROVENANCE
from losskit.recipe import Recipe, read_document
from losskit_plugins.data.columns import Match
from losskit_plugins.data.files import files_of, match_evaluation, peek
from losskit_plugins.data.transforms import match_training, read_training

from .components import Component, resolve
from .options import check_training
from .run import METRICS_FILE, RECIPE_FILE, Run, read_metrics, write_json
from .workspace import Workspace

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from losskit import Encoder, Execution, Loss

    from .trainer import Evaluation, Trainer

__all__ = ["Checked", "Job", "check", "check_names"]

logger = logging.getLogger("losskit")

TOKENS_ON_CPU, TOKENS_ON_ACCELERATOR = 1024, 16384
"""Padded tokens per forward of length-packed encoding, where the recipe leaves it open: what keeps a device busy."""


@dataclass(frozen=True)
class Checked:
    """What a recipe means, as far as that shows without importing anything heavy.

    Args:
        encoder: as the recipe names it.
        loss: as the recipe names it.
        matched: which column of the training data is which input; None where only the built loss can tell.
    """

    encoder: Component
    loss: Component
    matched: Match | None


def check(recipe: Recipe) -> Checked:
    """Check names, options, files, columns and labels; imports neither torch nor transformers, writes nothing.

    Raises:
        LosskitError: what does not fit.
    """
    encoder, loss = check_names(recipe)
    matched = match_training(recipe.data.train, loss.formats, loss.spec.name) if loss.formats else None
    if recipe.data.eval is not None:
        match_evaluation(recipe.data.eval)
    return Checked(encoder, loss, matched)


def check_names(recipe: Recipe) -> tuple[Component, Component]:
    """Check names and options alone; the encoder and the loss.

    Raises:
        LosskitError: what does not fit.
    """
    check_training(recipe.training, evaluates=recipe.data.eval is not None)
    if isinstance(recipe.encoder, dict) and "trust_remote_code" in recipe.encoder:
        raise RecipeError(
            "encoder.trust_remote_code: no recipe may say so",
            fix="give --trust-remote-code, or train(..., trust_remote_code=True)",
        )
    encoder, loss = resolve(recipe.encoder, "encoder"), resolve(recipe.loss, "loss")
    families = encoder.spec.card.encoders if encoder.spec.card else ()
    if families and not set(families) & set(loss.families):
        raise RecipeError(
            f"loss {loss.spec.name}", expected=f"an encoder that is {' or '.join(loss.families) or 'of no family'}",
            got=f"{encoder.spec.name}, which is {' or '.join(families)}", fix="choose another loss or encoder",
        )  # fmt: skip
    return encoder, loss


class Job:
    """Trains as a recipe says and writes the run.

    Args:
        recipe: with paths as they are now.
        shown: with paths as they will be in the finished run.
        checked: what `check` found.
        workspace: where the run is written, open.
        trust_remote_code: let the encoder run code that its model folder brings.
        callbacks: for the trainer.
    """

    def __init__(
        self,
        recipe: Recipe,
        shown: Recipe,
        checked: Checked,
        workspace: Workspace,
        *,
        trust_remote_code: bool = False,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.recipe, self.shown, self.checked, self.workspace = recipe, shown, checked, workspace
        self.trust_remote_code = trust_remote_code
        self.callbacks = callbacks

    def run(self) -> Run:
        """Load, evaluate, train, evaluate, write."""
        self._note_recipe()
        from transformers import set_seed

        set_seed(self.recipe.seed)
        evaluation = self._evaluation()
        encoder = self._encoder()
        loss = self._loss(encoder)
        self._note_components(loss, encoder)
        trainer = self._trainer(loss, evaluation)
        before = self._before(trainer)
        logger.info("Training with %s", type(loss).__name__)
        checkpoint = self.workspace.checkpoint
        trained = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        after = self._measured(trainer, "after")
        if self.workspace.main:
            train = {"steps": trained.global_step, **trainer.figures()}
            self._write(trainer, {"schema": 1, "before": before, "after": after, "train": train})
            self.workspace.finish()
        self.workspace.wait()
        return Run(self.workspace.output)

    def _note_recipe(self) -> None:
        """Write the recipe down for a later --resume; refuse to go on with a run of another one."""
        earlier = self.workspace.earlier(RECIPE_FILE)
        wanted = self.shown.to_dict()
        if earlier is not None:
            found = read_document(earlier)
            for part in ("encoder", "data", "loss"):
                if found.get(part) != wanted[part]:
                    raise RecipeError(
                        f"--resume into {self.workspace.output}", expected=f"{part} {found.get(part)} as it began",
                        got=str(wanted[part]), fix="choose another output, or give --force to start over",
                    )  # fmt: skip
        if self.workspace.main:
            (self.workspace.folder / RECIPE_FILE).write_text(self.shown.to_yaml(), encoding="utf-8")

    def _note_components(self, loss: Any, encoder: Encoder) -> None:
        """Write down where encoder and loss come from, as they are now; the recipe shall require their plugins."""
        from .provenance import provenance, requirements

        self.origin = provenance(loss, encoder)
        plugins = requirements(self.origin["components"], self.shown.plugins)
        self.shown = self.shown.model_copy(update={"plugins": plugins})
        if self.workspace.main:
            write_json(self.workspace.folder / PROVENANCE, self.origin)

    def _encoder(self) -> Encoder:
        encoder: Encoder = build(self.recipe.encoder, kind="encoder", trust_remote_code=self.trust_remote_code)
        return encoder

    def _loss(self, encoder: Encoder) -> Any:
        """The loss under its execution; a plain module has none, and only its own way to call the encoder."""
        from losskit import Loss

        loss = build(self.recipe.loss, encoder, trust_remote_code=self.trust_remote_code)
        if isinstance(loss, Loss):
            loss.execution = self._execution(encoder)
        elif self.recipe.execution is not None:
            raise RecipeError(
                "execution", expected=f"none, for {type(loss).__name__} is no losskit.Loss", fix="leave it out"
            )
        return loss

    def _execution(self, encoder: Encoder) -> Execution:
        """As the recipe says, else chosen; what was chosen goes into the filled-in recipe."""
        from losskit.execution import from_config, to_config

        if self.recipe.execution is not None:
            return from_config(self.recipe.execution)
        execution = choose_execution(encoder)
        self.shown = self.shown.model_copy(update={"execution": to_config(execution)})
        logger.info("Chosen execution: %s", execution)
        return execution

    def _trainer(self, loss: Loss, evaluation: Evaluation | None) -> Trainer:
        from losskit import Loss
        from losskit_plugins.data.collator import Collator

        from .options import training_arguments
        from .trainer import Trainer

        source, matched = self.recipe.data.train, self.checked.matched
        # What the card allows, the options of the built loss may not.
        if matched is None or (isinstance(loss, Loss) and matched.format not in loss.formats):
            matched = match_training(source, loss.formats, self.checked.loss.spec.name)
        rows, matched = read_training(source, matched, self.recipe.seed)
        logger.info("%d rows of %s: %s", len(rows), self.shown.data.train.path, matched.summary())
        if isinstance(loss, Loss):
            _fit_inputs(loss.encoder, rows, matched)
            matched = _with_classes_of(loss.encoder, matched)
        return Trainer(
            loss=loss,
            train_dataset=rows,
            args=training_arguments(self.recipe.training, self.workspace.checkpoints),
            collator=Collator(loss, matched),
            evaluation=evaluation,
            batch_sampler=self.recipe.training.batch_sampler,
            samples_per_class=self.recipe.training.samples_per_class,
            callbacks=[*self._plugins_callbacks(), *self.callbacks],
        )

    def _evaluation(self) -> Evaluation | None:
        from losskit_plugins.evaluation import evaluate, read_evaluation

        source = self.recipe.data.eval
        if source is None:
            return None
        return partial(evaluate, data=read_evaluation(source), metrics=source.metrics)

    def _plugins_callbacks(self) -> list[TrainerCallback]:
        """What plugins add through the hook `losskit_train_callbacks`, noted as the run's; what breaks is left out."""
        from transformers import TrainerCallback

        from .provenance import callback_origin

        hooks = Hooks()
        found, origins = [], []
        for entry, item in hooks.call("losskit_train_callbacks", recipe=self.shown):
            if isinstance(item, TrainerCallback):
                found.append(item)
                origins.append(callback_origin(entry.provider, entry.version, item))
            else:
                logger.warning("%s gives %s, which is no TrainerCallback", entry.provider, type(item).__name__)
        for problem in hooks.problems:
            logger.warning("%s", problem)
        self.origin["callbacks"] = origins
        return found

    def _before(self, trainer: Trainer) -> dict[str, Any]:
        """Metrics before the first step; of a resumed run those that it began with."""
        earlier = self.workspace.earlier(METRICS_FILE)
        before = self._measured(trainer, "before") if earlier is None else read_metrics(earlier)["before"]
        if self.workspace.main:
            write_json(self.workspace.folder / METRICS_FILE, {"schema": 1, "before": before})
        return dict(before)

    def _measured(self, trainer: Trainer, moment: str) -> dict[str, Any]:
        if trainer.evaluation is None:
            return {}
        logger.info("Evaluating %s training", moment)
        return trainer.measure()

    def _write(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Everything that a run consists of, into the workspace."""
        from .results import write_results

        logger.info("Writing %s", self.workspace.output)
        sources = {"train": self.recipe.data.train, "eval": self.recipe.data.eval}
        data = {part: files_of(source) for part, source in sources.items() if source is not None}
        rows = {"train": len(trainer.train_dataset)}
        if self.recipe.data.eval is not None:
            rows["eval"] = len(peek(self.recipe.data.eval, count=sys.maxsize).rows)
        write_results(trainer, self.shown, metrics, self.origin, data, rows, self.workspace)


def _fit_inputs(encoder: Encoder, rows: Iterable[Mapping[str, Any]], matched: Match) -> None:
    """Let a cross-encoder that measures its inputs see those of all rows."""
    from losskit.batch import query_document_pairs

    fit = getattr(encoder, "fit_inputs", None)
    if fit is not None and encoder.family == "cross-encoder":
        fit(pair for row in rows for pair in query_document_pairs([[row[each.data]] for each in matched.columns])[0])


def _with_classes_of(encoder: Encoder, matched: Match) -> Match:
    """Classes that the data calls by name as the outputs of a cross-encoder have them; one without names takes these.

    Raises:
        DataError: a class that the encoder has no output for.
    """
    known = getattr(encoder, "classes", None)
    if known is None or matched.label is None or matched.label.classes is None:
        return matched
    if not known:
        encoder.classes = matched.label.classes  # type: ignore[attr-defined]
        return matched
    foreign = [name for name in matched.label.classes if name not in known]
    if foreign:
        raise DataError(
            f"{matched.where}, column {matched.label.data!r}", expected=f"classes of the encoder ({', '.join(known)})",
            got=", ".join(foreign),
        )  # fmt: skip
    return replace(matched, label=replace(matched.label, classes=known))


def choose_execution(encoder: Encoder) -> Execution:
    """Encoding packed by length where texts are encoded one by one, which is faster and needs less memory."""
    import torch

    from losskit.execution import Direct
    from losskit.features import width

    if encoder.family == "cross-encoder" or not width(encoder.preprocess(["text"])):
        return Direct()
    return Direct(tokens=TOKENS_ON_ACCELERATOR if torch.accelerator.is_available() else TOKENS_ON_CPU)
