"""`Loss`: the base class that turns a pure `compute` into what trainers call."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import registry
from .adapt import view
from .batch import is_raw, preprocess, query_document_pairs
from .card import Card, Format
from .check import check_batch, check_lists, check_values, flat_labels, one_per_row, require_texts, signature
from .clock import Clock, Moment
from .errors import LossError, LosskitError
from .execution import Direct, Execution, encode, gather, world_size
from .features import NO_RIDERS, Riders, move, unload
from .further import columns_read, encode_further, unread
from .math.lists import tuple_index
from .math.precision import full_precision, promoted
from .output import Output
from .protocols import Encoder, Features, Similarity
from .shares import Value, share, weighted_mean

__all__ = ["Loss", "Value"]

logger = logging.getLogger("losskit")

DEFAULT_EXECUTION = Direct()

Observer = Callable[[Sequence[Output], Tensor | None, slice], None]


class _Reading(NamedTuple):
    """What the losses of a tree ask of the records of so many columns.

    Args:
        needs: what they read beyond embeddings.
        columns: those that the trained encoder reads.
        losses: of the tree; what further encoders they have may change between forwards.
    """

    needs: tuple[str, ...]
    columns: list[int]
    losses: tuple[Loss, ...]


class Loss(nn.Module):
    """Base of losses: write a `card`, a constructor that stores its arguments, and `compute`.

    Args:
        model: the encoder that is trained, kept as the child `model`; None where embeddings are brought.
        execution: how records come about; None: `Direct()`, or that of the surrounding wrapper.
    """

    card: ClassVar[Card]
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "cosine", "sparse": "dot", "multi-vector": "maxsim"}
    uses_weights: ClassVar[bool] = False
    uses_lists: ClassVar[tuple[str, ...]] = ("documents",)
    """Which of the card's inputs may hold a list of texts per row."""
    compares_rows: ClassVar[bool] = True
    """Whether a row may serve another as a negative; False where each row, or pair, is a task of its own."""

    cases: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Options that a validation tries; the first stands in for those that are required."""

    drawn: Any = None
    strict: bool = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        taken = [name for name in _options(cls) if name != "similarity" and hasattr(Loss, name)]
        if taken:
            raise LossError(
                f"{cls.__name__}.__init__",
                expected="options by names that losskit.Loss does not use itself",
                got=", ".join(taken),
                fix="rename them",
            )

    def __init__(self, model: Any = None, *, execution: Execution | None = None) -> None:
        super().__init__()
        self._model = None
        self.model = model
        self._execution = execution
        self._similarity: str | Similarity | None = None
        self._moment = Moment()
        self._seen: set[Any] = set()
        self._readings: dict[int, _Reading] = {}
        self._warned: set[str] = set()
        self._views: dict[int, tuple[Any, Encoder]] = {}
        self._scorer: tuple[Any, Any, Similarity] | None = None
        self.observers: list[Observer] = []
        self.frozen: dict[str, Encoder] = {}
        self._towers: tuple[str, ...] = ()
        self._check_family()

    # What a loss writes

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """The loss of the tuples `rows` against all columns: pure, without state, randomness or model.

        Args:
            columns: records in the card's order; they may be longer than `rows` covers.
            labels: of all tuples.
            rows: tuples; anchor i with its positive i and negatives i.
        """
        raise NotImplementedError(f"{type(self).__name__}.compute")

    def denominator(
        self, columns: Sequence[Output], labels: Tensor | None, rows: slice
    ) -> int | Tensor | dict[str, Tensor]:
        """What the mean over slices of rows is weighted by; a tensor on the device, or the number of rows.

        By component where components differ: those that a dict does not name have its key "".
        """
        count: int = rows.stop - rows.start
        return count

    def draw(self, generator: torch.Generator, sizes: Sequence[int]) -> Any:
        """Random numbers for one forward, given the number of tuples of each column; kept as `self.drawn`."""
        return None

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        """See the (gathered) columns of a training forward; may update buffers and append detached tuples."""
        return columns, labels

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """Why a batch of so many rows and columns teaches nothing, or nothing; reads labels on the CPU only."""
        return ""

    def check_labels(self, columns: int, labels: Tensor) -> None:
        """Raise where the labels of a batch, on the CPU, have values that their kind or this loss does not know."""
        check_values(type(self).__name__, self.formats, labels)

    def check_lists(self, columns: int, labels: Tensor, lists: Sequence[int] | None) -> None:
        """Raise where the labels of lists, on the CPU, are not as this loss reads them.

        Args:
            columns: of the batch.
            labels: of the documents of all rows.
            lists: how many documents each row has; None: as many as there are columns of them.
        """

    def pairs(self, columns: Sequence[Any], drawn: Any = None) -> tuple[list[tuple[str, str]], tuple[int, ...]]:
        """The (query, document) pairs that a cross-encoder scores for columns of texts, and how many a row has.

        `drawn` is what `draw` gave for the sizes of these columns.
        """
        return query_document_pairs(columns)

    # What it is asked

    @property
    def formats(self) -> tuple[Format, ...]:
        """The data it trains on."""
        return tuple(self.card.formats) if self._has_card else ()

    @property
    def needs(self) -> tuple[str, ...]:
        """What it reads of records beyond embeddings."""
        return tuple(self.card.needs) if self._has_card else ()

    @property
    def reads(self) -> Mapping[str, Sequence[int] | None] | None:
        """Which columns each encoder reads; None: all."""
        return self.card.reads if self._has_card else None

    @property
    def towers(self) -> Mapping[str, Any]:
        """Encoders that are trained beside the model, each a child of its name."""
        return {name: self._modules[name] for name in self._towers}

    @towers.setter
    def towers(self, towers: Mapping[str, nn.Module]) -> None:
        for name, tower in towers.items():
            self.add_module(name, tower)
        self._towers = tuple(towers)

    @property
    def carries_texts(self) -> bool:
        """Whether batches must bring their texts, for frozen encoders read them."""
        return any(loss.frozen for _, loss in self.tree())

    @property
    def row_wise(self) -> bool:
        """Whether the whole is the mean over rows given all columns."""
        return self._has_card and self.card.row_wise

    @property
    def fixed_dimension(self) -> bool:
        """Whether its parameters, draws or state have the encoder's width."""
        return self._has_card and self.card.fixed_dimension

    @property
    def takes_weights(self) -> bool:
        """Whether it can use `parts["weight"]`."""
        return self.uses_weights

    @property
    def remembers(self) -> bool:
        """Whether `observe` changes what all processes must have alike: unless it says otherwise, if it has buffers."""
        return any(True for _ in self.buffers(recurse=False))

    @property
    def _has_card(self) -> bool:
        return getattr(type(self), "card", None) is not None

    @property
    def inner(self) -> Mapping[str, Loss]:
        """The losses it wraps, by their paths."""
        return {}

    @property
    def execution(self) -> Execution:
        """The one execution of this loss and all that it wraps."""
        for _, loss in self.tree():
            if loss._execution is not None:
                return loss._execution
        return DEFAULT_EXECUTION

    @execution.setter
    def execution(self, execution: Execution) -> None:
        for _, loss in self.tree():
            loss._execution = execution

    @property
    def model(self) -> Any:
        """The encoder that is trained, or None; a module is the child of this name."""
        # Looked up in every forward: by itself a module finds its children last, after much else.
        return self._modules.get("model", self._model)

    @model.setter
    def model(self, model: Any) -> None:
        self._model = model

    @property
    def encoder(self) -> Encoder:
        """The current `model` seen as an encoder.

        Raises:
            LossError: the loss was built without a model.
        """
        model = self.model
        if model is None:
            raise LossError(
                f"{type(self).__name__}.model",
                expected="an encoder",
                got="None",
                fix="build it with a model, or call compute_loss_from_embeddings",
            )
        return self.view(model)

    def view(self, model: Any) -> Encoder:
        """A model seen as an encoder; remembered as long as it is the same object."""
        known = self._views.get(id(model))
        if known is None or known[0] is not model:
            known = self._views[id(model)] = (model, view(model))
        return known[1]

    @property
    def progress(self) -> float:
        """How far the training is, in [0, 1]; 1 in evaluation.

        Raises:
            LossError: read in training when nobody sets it.
        """
        if self._moment.progress is None:
            raise LossError(
                f"{type(self).__name__}.progress",
                expected="to be set by the trainer",
                got="nothing",
                fix="add losskit.ProgressCallback() to the trainer's callbacks, or call loss.set_clock",
            )
        return self._moment.progress

    @property
    def citation(self) -> str:
        """BibTeX of this loss and all that it wraps."""
        cards = [loss.card.citation for _, loss in self.tree() if loss._has_card]
        return "\n\n".join(dict.fromkeys(text.strip() for text in cards if text.strip()))

    def tree(self, path: str = "") -> tuple[tuple[str, Loss], ...]:
        """This loss and all that it wraps, with their paths."""
        found: tuple[tuple[str, Loss], ...] = ((path, self),)
        for name, loss in self.inner.items():
            found += loss.tree(f"{path}.{name}" if path else name)
        return found

    def matrix(self, a: Output, b: Output) -> Tensor:
        """Similarities of all pairs, [n, m], in float32 at least."""
        with full_precision(a.embedding):
            return self.scorer(a, b)

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Similarities of item i with item i, [n], in float32 at least."""
        with full_precision(a.embedding):
            return self.scorer.pairwise(a, b)

    def pairwise_each(self, a: Output, others: Sequence[Output]) -> Tensor:
        """Similarities of item i with item i of each other record, [n, k], in float32 at least."""
        if len(others) == 1:
            return self.pairwise(a, others[0])[:, None]
        with full_precision(a.embedding):
            together = getattr(self.scorer, "pairwise_each", None)
            if together is None:
                return torch.stack([self.scorer.pairwise(a, other) for other in others], 1)
            each: Tensor = together(a, others)
            return each

    def distances(self, a: Output, b: Output) -> Tensor:
        """Distances of item i and item i, [n]: what their similarity lacks to the highest.

        Raises:
            LossError: the similarity has no highest value.
        """
        distances: Tensor = self.highest() - self.pairwise(a, b)
        return distances

    def highest(self) -> float:
        """The similarity of an item with itself; a loss of distances asks for it when it is built.

        Raises:
            LossError: the similarity has no highest value.
        """
        highest: float | None = getattr(self.scorer, "highest", None)
        if highest is None:
            raise LossError(
                f"{type(self).__name__}.similarity",
                expected="one with a highest value, for the distance from it",
                got=self.similarity_name,
                fix="choose cosine, euclidean or manhattan",
            )
        return highest

    @property
    def similarity(self) -> str | Similarity | None:
        """The similarity as it was given: a name, an object, or None for the family's default.

        Raises:
            NotFoundError: on setting a name that nothing answers to.
            LossError: on setting one for another family of encoders.
        """
        # A module is registered as a child of this name before any setter is asked.
        return self._modules.get("similarity", self._similarity)  # type: ignore[return-value]

    @similarity.setter
    def similarity(self, similarity: str | Similarity | None) -> None:
        name = similarity if isinstance(similarity, str) else type(similarity).__name__
        card = registry.get("similarity", name).card if name == similarity else getattr(type(similarity), "card", None)
        family = None if card is None or self.model is None else self.encoder.family
        if card is not None and card.encoders and family not in (None, "cross-encoder", *card.encoders):
            raise LossError(
                f"{type(self).__name__}.similarity",
                expected=f"one for an encoder that is {family}",
                got=f"{name}, which is for {' and '.join(card.encoders)}",
                fix="leave it out for the usual one",
            )
        self._similarity = similarity

    @property
    def similarity_name(self) -> str:
        """The name of the similarity in use: the one given, or the family's default."""
        chosen = self.similarity
        if chosen is None:
            family = "dense" if self.model is None else self.encoder.family
            return self.default_similarity.get(family, "cosine")
        return chosen if isinstance(chosen, str) else registry.name_of(type(chosen))

    @property
    def scorer(self) -> Similarity:
        """The similarity in use."""
        chosen, model, known = self.similarity, self.model, self._scorer
        if known is not None and known[0] is chosen and known[1] is model:
            return known[2]
        scorer: Similarity = (
            chosen
            if chosen is not None and not isinstance(chosen, str)
            else registry.get("similarity", self.similarity_name).load()()
        )
        self._scorer = chosen, model, scorer
        return scorer

    def drawn_pairs(self, columns: Sequence[Any]) -> tuple[list[tuple[str, str]], tuple[int, ...]]:
        """`pairs` of columns of texts, given draws that follow from the seed and these texts.

        So a batch has the same pairs whichever process forms them, after a resume too; `drawn` stays as it is.

        Raises:
            LossError: columns that differ in length.
        """
        sizes = [len(column) for column in columns]
        if len(set(sizes)) > 1:
            raise LossError(
                f"the batch for {type(self).__name__}", expected="as many rows in every column", got=f"{sizes}"
            )
        drawing = [(path, loss) for path, loss in self.tree() if type(loss).draw is not Loss.draw]
        before = [loss.drawn for _, loss in drawing]
        try:
            for path, loss in drawing:
                generator = self._moment.clock.generator_for(columns, path)
                loss.drawn = loss.draw(generator, sizes)
            return self.pairs(columns, self.drawn)
        finally:
            for (_, loss), drawn in zip(drawing, before, strict=True):
                loss.drawn = drawn

    def owned_linear(self, outputs: int, *, vectors: int = 1, dimension: int | None = None) -> nn.Linear:
        """A layer over embeddings that this loss owns: where the model is, in its precision but float32 at least.

        Args:
            outputs: how many numbers it gives.
            vectors: how many embeddings it reads, side by side.
            dimension: of an embedding; None: as the encoder says.

        Raises:
            LossError: nobody says the dimension.
        """
        if dimension is None and self.model is not None:
            dimension = self.encoder.dimension
        if dimension is None:
            raise LossError(
                f"{type(self).__name__}.model",
                expected="an encoder that knows the width of its embeddings",
                got="None" if self.model is None else f"{type(self.model).__name__} of unknown dimension",
                fix="build the loss with its model, and set model.dimension where that is missing",
            )
        return nn.Linear(vectors * dimension, outputs, **self._place())

    def owned_parameter(self, *shape: int) -> nn.Parameter:
        """Zeros that this loss owns and trains: where the model is, in its precision but float32 at least."""
        return nn.Parameter(torch.zeros(shape, **self._place()))

    def _place(self) -> dict[str, Any]:
        """Device and precision of what this loss owns."""
        like = next(self.model.parameters(), None) if isinstance(self.model, nn.Module) else None
        return {} if like is None else {"device": like.device, "dtype": promoted(like).dtype}

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments, in plain values; `losskit.build({"name": ..., **config}, model)` reads them.

        An encoder stands there as the expression that builds it, one that was made of objects by its name alone.
        """
        names = _options(type(self))
        further: dict[str, Any] = {**self.frozen, **self.towers}
        computed = {name for name in names if isinstance(inspect.getattr_static(self, name, None), property)}
        stored = {*self.__dict__, *self._modules, *further, *computed}
        missing = [name for name in names if name not in stored]
        if missing:
            raise LossError(
                f"{type(self).__name__}.__init__",
                expected="every argument stored under its own name",
                got=f"no attribute {', '.join(missing)}",
            )
        return {name: plain_value(further[name] if name in further else getattr(self, name)) for name in names}

    def __getstate__(self) -> dict[str, Any]:
        # Views, readings and scorers are made again on first use; observers belong to a trainer.
        return {**self.__dict__, "_views": {}, "_readings": {}, "_scorer": None, "observers": []}

    # What it owns and where it stands

    def set_clock(self, clock: Clock) -> None:
        """Say where the training stands; draws and schedules follow."""
        if clock.step != self._moment.clock.step:
            self._moment.micro_batch = 0
        self._moment.clock = clock

    def owned_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of this loss and all that it wraps, without the models; what is shared, once."""
        models = tuple(f"{path}.model." if path else "model." for path, _ in self.tree())
        parameters = dict(self.named_parameters(remove_duplicate=False))
        known = {id(parameter) for key, parameter in parameters.items() if key.startswith(models)}
        state: dict[str, Tensor] = {}
        for key, value in self.state_dict().items():
            parameter = parameters.get(key, value)
            if not key.startswith(models) and id(parameter) not in known:
                known.add(id(parameter))
                state[key] = value
        return state

    def load_owned_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `owned_state` gave; buffers take their saved shapes.

        Raises:
            LossError: names that are missing or unknown, or a parameter of another shape.
        """
        own = self.owned_state()
        if own.keys() != state.keys():
            raise LossError(
                f"the saved state of {type(self).__name__}", expected=f"{sorted(own)}", got=f"{sorted(state)}"
            )
        buffers = dict(self.named_buffers(remove_duplicate=False))
        parameters = dict(self.named_parameters(remove_duplicate=False))
        for key, value in state.items():
            if key in parameters and parameters[key].shape != value.shape:
                raise LossError(
                    f"the saved {key} of {type(self).__name__}",
                    expected=f"shape {list(parameters[key].shape)}",
                    got=f"{list(value.shape)}",
                )
        with torch.no_grad():
            for key, value in state.items():
                if key in parameters:
                    parameters[key].copy_(value)
                    continue
                *path, name = key.split(".")
                setattr(self.get_submodule(".".join(path)), name, value.to(buffers[key]))

    def check_idle(self, rows: int, columns: int, labels: Tensor | None, lists: Sequence[int] | None = None) -> None:
        """Warn once, or raise if `strict`, of a batch that teaches one of the losses nothing.

        Labels on another device are not read; collators check them before.

        Args:
            rows: of the batch.
            columns: of the batch.
            labels: of all rows.
            lists: how many documents each row has; None: as many as there are columns of them.

        Raises:
            LossError: labels of values that a loss does not know.
        """
        if labels is not None and labels.device.type != "cpu":
            return
        for _, loss in self.tree():
            if labels is not None and not loss.inner:
                loss.check_labels(columns, labels)
                loss.check_lists(columns, labels, lists)
            reason = loss.idle(rows, columns, labels)
            if reason and self.strict:
                raise LossError(type(loss).__name__, got=f"a batch that teaches nothing: {reason}")
            if reason and reason not in self._warned:
                self._warned.add(reason)
                logger.warning("%s: a batch teaches nothing: %s", type(loss).__name__, reason)

    # What trainers call

    def forward(
        self,
        inputs: Sequence[Features],
        labels: Tensor | Sequence[Tensor] | None = None,
        prompt: str | None = None,
        task: str | None = None,
    ) -> Value:
        """The loss of a batch.

        Args:
            inputs: features per column; from cross-encoder trainers columns of raw texts.
            labels: one tensor; with list columns flattened, or one tensor per row.
            prompt: for raw texts.
            task: taken for the sake of such trainers, and unused.

        Raises:
            LossError: the batch does not fit. No TypeError leaves here: some trainers would call again.
        """
        if prompt is not None or task is not None:
            require_texts(type(self).__name__, prompt=prompt, task=task)
        try:
            read = [unload(each) for each in (self._tokenised(inputs, prompt) if is_raw(inputs) else inputs)]
            columns = self._encoded([features for features, _ in read], [riders for _, riders in read])
            return self._stage(
                columns, flat_labels(type(self).__name__, labels, columns[-1].lists if columns else None)
            )
        except LosskitError:
            raise
        except TypeError as error:
            raise LossError(f"{type(self).__name__} on this batch", got=f"TypeError: {error}") from error

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Value:
        """The loss of embeddings, one tensor per column, that were made elsewhere; of tokens all count."""
        columns = [
            Output(each, mask=each.new_ones(each.shape[:2], dtype=torch.bool) if each.ndim == 3 else None)
            for each in embeddings
        ]
        return self._stage(columns, flat_labels(type(self).__name__, labels))

    def _stage(self, columns: list[Output], labels: Tensor | None) -> Value:
        """From records to the loss: gathering, draws, memory, and the rows in slices."""
        training, alone = self._trains(), world_size() == 1
        self._check(columns, labels)
        if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
            labels = one_per_row(self.formats, columns, labels)
        own = columns[0].tuples
        rows, others = slice(0, own), None
        if not alone and self.execution.gather:
            whole = gather(columns, labels)
            columns, labels, others = whole.columns, whole.labels, whole.tuples
            rows = whole.rows if self.row_wise else slice(0, sum(whole.tuples))
        if training:
            self.check_idle(own, len(columns), labels, columns[-1].lists)
        self._draw(training, columns)
        if training:
            detached = [column.map(torch.Tensor.detach) for column in columns] if self.observers else []
            for observer in self.observers:
                observer(detached, labels, rows)
            columns, labels = self._observed(columns, labels, alone)
        with full_precision(columns[0].tensors()[0]):
            value = self._in_slices(columns, labels, rows)
            if others is None or not self.row_wise:
                return value
            return self._as_share(value, columns, labels, rows, others)

    def _tokenised(self, inputs: Sequence[Any], prompt: str | None) -> list[Features]:
        """The features of columns of raw texts, where the model is."""
        made = preprocess(self, inputs, prompts=None if prompt is None else {"text": prompt})
        like = next(self.model.parameters(), None)
        return made if like is None else [move(features, like.device) for features in made]

    def _encoded(self, features: Sequence[Features], riders: Sequence[Riders]) -> list[Output]:
        """One record per column, with lists, weights and what further encoders make of it."""
        asked, read, losses = self._reading(len(features))
        needs = _met(asked, features) if asked else ()
        model = self.model
        read_features = [features[index] for index in read]
        made = encode(self.encoder, model, read_features, self.execution, needs)
        if riders.count(NO_RIDERS) < len(riders) or len(read) < len(features):
            rest = iter(made)
            made = [
                _with_lists(next(rest), rider.lists)
                if index in read
                else unread(self.encoder, features[index], needs, rider.lists)
                for index, rider in enumerate(riders)
            ]
        if any(loss.frozen or loss._towers for loss in losses):
            made = encode_further(self, made, features, riders)
        for rider in riders:
            if rider.weight is not None:
                return [self._weighted(made[0], rider.weight), *made[1:]]
        return made

    def _reading(self, columns: int) -> _Reading:
        """What the losses of the tree ask of records, remembered as long as these are the same."""
        losses = tuple([loss for _, loss in self.tree()])
        known = self._readings.get(columns)
        if known is None or known.losses != losses:
            asked = tuple(dict.fromkeys(need for loss in losses for need in loss.needs))
            read = columns_read([loss for loss in losses if not loss.inner], "model", columns)
            known = self._readings[columns] = _Reading(asked, read, losses)
        return known

    def _check_family(self) -> None:
        families = self.card.encoders if self._has_card else ()
        if self.model is None or not families:
            return
        family = self.encoder.family
        if family not in families:
            raise LossError(
                f"{type(self).__name__}.model",
                expected=f"an encoder that is {' or '.join(families)}",
                got=f"{type(self.model).__name__}, which is {family}",
                fix="choose another loss or encoder, or set model.family if it is said wrongly",
            )

    def _check(self, columns: Sequence[Output], labels: Tensor | None) -> None:
        seen = signature(columns, labels)
        if seen in self._seen:
            return
        family = "dense" if self.model is None else self.encoder.family
        if family == "cross-encoder" and self.execution.gather:
            raise LossError(
                f"{type(self).__name__}.execution",
                expected="gather=False with a cross-encoder, whose pairs are formed before they are scored",
                got=repr(self.execution),
            )
        check_batch(type(self).__name__, self.formats, family, columns, labels)
        for _, loss in self.tree() if family != "cross-encoder" else ():
            if not loss.inner:
                check_lists(type(loss).__name__, loss.formats, loss.uses_lists, columns)
        if len(self._seen) < 10_000:
            self._seen.add(seen)

    def _observed(
        self, columns: list[Output], labels: Tensor | None, alone: bool
    ) -> tuple[list[Output], Tensor | None]:
        for _, loss in self.tree() if not (alone or self.execution.gather) else ():
            if type(loss).observe is not Loss.observe and loss.remembers:
                raise LossError(
                    f"{type(loss).__name__} in several processes",
                    expected="execution with gather=True, so that all remember the same",
                    got=repr(self.execution),
                )
        longer, labels = self.observe(columns, labels)
        if longer is not columns and longer[0].tuples != columns[0].tuples and not self.row_wise:
            raise LossError(
                type(self).__name__,
                expected="a row-wise loss around one that adds rows to the batch",
                got="one that compares all rows",
                fix="train with the inner loss alone",
            )
        return longer, labels

    def _weighted(self, column: Output, weight: Tensor) -> Output:
        if not self.takes_weights:
            raise LossError(
                f"sample weights for {type(self).__name__}",
                expected="none, for it cannot use them",
                got=f"{weight.numel()} weights",
                fix="drop the weight column, or choose a loss that uses it",
            )
        if tuple(weight.shape) != (column.tuples,):
            raise LossError(
                f"sample weights for {type(self).__name__}",
                expected=f"one per row, shape [{column.tuples}]",
                got=f"{list(weight.shape)}",
            )
        if column.lists is not None:  # parts are cut by items
            weight = weight[tuple_index(column.lists, column.items, weight.device)]
        return replace(column, parts={**column.parts, "weight": weight})

    def _trains(self) -> bool:
        model = self.model
        return torch.is_grad_enabled() and (model is None or bool(getattr(model, "training", True)))

    def _draw(self, training: bool, columns: Sequence[Output]) -> None:
        """Set progress and make the draws of the whole tree, once per forward."""
        clock, micro_batch = self._moment.clock, self._moment.micro_batch if training else None
        for path, loss in self.tree():
            loss._moment.progress = clock.progress if training else 1.0
            if type(loss).draw is not Loss.draw:
                sizes = [column.tuples for column in columns]
                loss.drawn = loss.draw(clock.generator(micro_batch, path), sizes)
        if training:
            self._moment.micro_batch += 1

    def _in_slices(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        size = self.execution.rows
        if size is None or not self.row_wise or rows.stop - rows.start <= size:
            return self.compute(columns, labels, rows)
        slices = [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]
        values = [self._recomputed(columns, labels, part) for part in slices]
        weights = [self.denominator(columns, labels, part) for part in slices]
        return weighted_mean(values, weights)

    def _recomputed(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """`compute`, whose intermediate results are thrown away and made again in the backward."""
        if not torch.is_grad_enabled():
            return self.compute(columns, labels, rows)
        tensors = [tensor for column in columns for tensor in column.tensors()]
        moment = [(loss, loss.drawn, loss._moment.progress) for _, loss in self.tree()]

        def run(*flat: Tensor) -> Value:
            rest = iter(flat)
            again = [column.with_tensors([next(rest) for _ in column.tensors()]) for column in columns]
            with _as_at(moment):
                return self.compute(again, labels, rows)

        value: Value = checkpoint(run, *tensors, use_reentrant=False, preserve_rng_state=False)
        return value

    def _as_share(
        self, value: Value, columns: Sequence[Output], labels: Tensor | None, rows: slice, tuples: Sequence[int]
    ) -> Value:
        """W d_r / sum(d) times the value of our rows, so that the mean over ranks is the joint loss."""
        ends = [sum(tuples[:rank]) for rank in range(len(tuples) + 1)]
        parts = [self.denominator(columns, labels, slice(*ends[rank : rank + 2])) for rank in range(len(tuples))]
        mine = self.denominator(columns, labels, rows)
        if not isinstance(value, dict):
            return share(value, mine, parts, None)
        return {key: share(each, mine, parts, key) for key, each in value.items()}


@contextlib.contextmanager
def _as_at(moment: Sequence[tuple[Loss, Any, float | None]]) -> Iterator[None]:
    """Draws and progress as they were; other forwards may lie between a forward and its backward."""
    now = [(loss, loss.drawn, loss._moment.progress) for loss, _, _ in moment]
    try:
        _set_moment(moment)
        yield
    finally:
        _set_moment(now)


def _set_moment(moment: Sequence[tuple[Loss, Any, float | None]]) -> None:
    for loss, drawn, progress in moment:
        loss.drawn, loss._moment.progress = drawn, progress


def _options(cls: type) -> list[str]:
    """The names of a constructor's options."""
    constructor: Any = cls.__init__  # type: ignore[misc]
    return [name for name in list(inspect.signature(constructor).parameters)[1:] if name not in ("model", "execution")]


def _met(needs: Iterable[str], features: Sequence[Features]) -> tuple[str, ...]:
    """What encoders are asked for: an optional need where all features have it."""
    asked = (need.removesuffix("?") for need in needs if need[-1] != "?" or all(need[:-1] in each for each in features))
    return tuple(dict.fromkeys(asked))


def _with_lists(column: Output, lists: tuple[int, ...] | None) -> Output:
    return column if lists is None else replace(column, lists=lists)


def plain_value(value: Any) -> Any:
    """A configuration value as lists, dicts, strings and numbers."""
    if isinstance(value, Mapping | nn.ModuleDict):
        return {key: plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | nn.ModuleList):
        return [plain_value(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    name, describe = registry.name_of(type(value)), getattr(value, "get_config_dict", None)
    config = None if describe is None else describe()
    return name if config is None else {"name": name, **plain_value(config)}
