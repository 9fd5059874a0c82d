"""SPLADE: a loss, and what keeps the embeddings of queries and documents sparse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from losskit import Card, Execution, Loss, Output, Regularizer, Wrapper, build
from losskit.errors import LossError, check_number
from losskit.loss import Value
from losskit.score_loss import described
from losskit_plugins.regularizers._sparse import active
from losskit_plugins.regularizers.flops import FlopsRegularizer

from .schedule import check_schedule, scheduled

__all__ = ["SpladeLoss", "adjusted"]

ROLES = ("document", "query", "joint")
CONTROLLED = ("document", "query")
SPEED = 0.05
"""By how much a weight changes in a step, at most: the share of it, as a logarithm."""
LIMIT = 1e6
"""How far a controlled weight may go from the given one, as a factor."""


def adjusted(factor: Tensor, found: Tensor, wanted: float, speed: float = SPEED) -> Tensor:
    """The factor of a weight after a batch: f exp(speed clip(ln(found / wanted))), clipped to [-1, 1] and 1e-6 to 1e6.

    Args:
        factor: f before.
        found: the mean number of active dimensions.
        wanted: what it should be.
        speed: 0 leaves the factor as it is.

    >>> adjusted(torch.tensor(2.0), torch.tensor(500.0), 100.0), adjusted(torch.tensor(2.0), torch.tensor(0.0), 100.0)
    (tensor(2.1025), tensor(1.9025))
    """
    return (factor * (found / wanted).log().clamp(-1.0, 1.0).mul(speed).exp()).clamp(1 / LIMIT, LIMIT)


class SpladeLoss(Wrapper):
    """Adds penalties to a loss that make queries and documents sparse.

    The first column holds the queries, all others documents. A penalty sees all of them at once, each text alike.

    Args:
        model: the encoder.
        loss: any loss; its components keep their names, a single value is called `base_loss`.
        document_regularizer_weight: a number, or a schedule such as `{"schedule": "quadratic", "to": 3e-5, "warmup":
            0.33}` (see `scheduled`), which stands at its end in evaluation. 0 leaves a penalty out.
        query_regularizer_weight: as well; None: queries are not regularized, as where their weights are fixed.
        document_regularizer: by name, with options as `{"name": "df-flops", "alpha": 0.2}`, or an object; None: flops.
        query_regularizer: as well.
        document_regularizer_threshold: of flops: documents with at most so many active terms are left as they are.
        query_regularizer_threshold: as well.
        use_document_regularizer_only: whether all columns are documents.
        joint_regularizer: of queries with documents.
        joint_regularizer_weight: None: there is none.
        document_active: how many terms of a document should be active in the mean. The weight then starts as given,
            and rises or falls with each training batch until that is so; in evaluation it is the given one.
        query_active: as well.
        execution: how records come about.

    Raises:
        LossError: options that contradict each other or that nothing would read, or a loss of single texts where
            queries and documents are told apart.
    """

    card = Card(
        encoders=["sparse"],
        memory="B",
        formula="loss + w_d R_d(documents) + w_q R_q(queries) + w_j R_j(queries, documents), weights by progress",
        citation="""@misc{formal2022distillation,
  title = {From Distillation to Hard Negative Sampling: Making Sparse Neural {IR} Models More Effective},
  author = {Formal, Thibault and Lassance, Carlos and Piwowarski, Benjamin and Clinchant, St{\\'e}phane},
  year = {2022},
  eprint = {2205.04733},
  archivePrefix = {arXiv}
}""",
        recommends=["multiple-negatives-ranking", "margin-mse", "distill-kl-div", "flops", "df-flops", "l1", "overlap"],
        relations=["With the weights 0 it is the inner loss."],
    )
    identity = {"document_regularizer_weight": 0.0}  # noqa: RUF012 - read as it stands

    def __init__(
        self,
        model: Any,
        loss: Loss,
        document_regularizer_weight: float | Mapping[str, Any],
        query_regularizer_weight: float | Mapping[str, Any] | None = None,
        document_regularizer: str | Regularizer | None = None,
        query_regularizer: str | Regularizer | None = None,
        document_regularizer_threshold: float | None = None,
        query_regularizer_threshold: float | None = None,
        use_document_regularizer_only: bool = False,
        joint_regularizer: str | Regularizer = "overlap",
        joint_regularizer_weight: float | Mapping[str, Any] | None = None,
        document_active: float | None = None,
        query_active: float | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, loss, execution=execution)
        self.document_regularizer_weight = document_regularizer_weight
        self.query_regularizer_weight = query_regularizer_weight
        self.document_regularizer = self._built("document", document_regularizer)
        self.query_regularizer = self._built("query", query_regularizer)
        self.document_regularizer_threshold = document_regularizer_threshold
        self.query_regularizer_threshold = query_regularizer_threshold
        self.use_document_regularizer_only = use_document_regularizer_only
        self.joint_regularizer = self._built("joint", joint_regularizer)
        self.joint_regularizer_weight = joint_regularizer_weight
        self.document_active = document_active
        self.query_active = query_active
        self._check_options()
        for role in CONTROLLED:
            if getattr(self, f"{role}_active") is not None:
                self.register_buffer(f"{role}_factor", torch.ones(()))

    @property
    def fixed_dimension(self) -> bool:
        """If the inner loss does, or a regularizer counts terms."""
        cards = [getattr(type(self.regularizer(role)), "card", None) for role in ROLES if self._uses(role)]
        return super().fixed_dimension or any(card is not None and card.fixed_dimension for card in cards)

    @property
    def remembers(self) -> bool:
        """Whether it follows a number of active terms, or a regularizer counts terms."""
        regularizers = (self.regularizer(role) for role in ROLES if self._uses(role))
        buffers = (each for made in regularizers if isinstance(made, nn.Module) for each in made.buffers())
        return super().remembers or any(True for _ in buffers)

    def regularizer(self, role: str) -> Regularizer:
        """The penalty on "document"s, on "query"s or "joint"ly."""
        chosen: Regularizer | None = getattr(self, f"{role}_regularizer")
        return FlopsRegularizer(getattr(self, f"{role}_regularizer_threshold")) if chosen is None else chosen

    def weight(self, role: str) -> Any:
        """The weight of a penalty at this moment; None where it is left out for good."""
        given = getattr(self, f"{role}_regularizer_weight")
        if isinstance(given, Mapping):
            given = scheduled(given, self.progress)
        elif not given:
            return None
        return given * (self.drawn or {}).get(role, 1.0)

    def draw(self, generator: torch.Generator, sizes: Sequence[int]) -> dict[str, Tensor]:
        """The factors of weights: none, unless a training forward observes some."""
        return {}

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        """Lets regularizers count terms and moves the weights that follow a number of active terms."""
        with torch.no_grad():
            seeing = {role: getattr(self.regularizer(role), "observe", None) for role in ROLES}
            wanting = {role: getattr(self, f"{role}_active", None) for role in ROLES}
            roles = [role for role in ROLES if seeing[role] is not None or wanting[role] is not None]
            for role, (queries, documents) in self._regularized(columns, roles).items():
                see, wanted = seeing[role], wanting[role]
                if see is not None:
                    see(queries, documents)
                if wanted is not None:
                    factor, found = getattr(self, f"{role}_factor"), active(documents.embedding).mean()
                    moved = adjusted(factor.to(found.device), found.to(factor.dtype), wanted, SPEED * self._eased(role))
                    setattr(self, f"{role}_factor", moved)
                    self.drawn = {**(self.drawn or {}), role: moved}
        return super().observe(columns, labels)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """The inner loss, `document_regularizer_loss`, `query_regularizer_loss` and `joint_regularizer_loss`.

        Penalties are no means over rows: they are computed once, with the first of them, and 0 with all others.
        """
        if rows.start:  # connected, for a backward through gathered columns has to run on every rank
            nothing = torch.stack([each.embedding[:0].sum() for each in columns if each.embedding is not None]).sum()
            penalties = {f"{role}_regularizer_loss": nothing for role in ROLES if self._uses(role)}
        else:
            penalties = {
                f"{role}_regularizer_loss": self._penalty(role, *sides)
                for role, sides in self._regularized(columns, ROLES).items()
            }
        base = self.loss.compute(columns, labels, rows)
        values = base if isinstance(base, dict) else {"base_loss": base}
        if values.keys() & penalties.keys():
            raise LossError(
                f"{type(self).__name__}.loss", expected="one without regularizers of its own",
                got=f"components {', '.join(values)}",
            )  # fmt: skip
        return values | penalties

    def denominator(
        self, columns: Sequence[Output], labels: Tensor | None, rows: slice
    ) -> int | Tensor | dict[str, Any]:
        """That of the inner loss for its components; 1 for penalties, where the first row is."""
        inner: Any = self.loss.denominator(columns, labels, rows)
        found: dict[str, Any] = inner if isinstance(inner, dict) else {"": inner}
        return found | {f"{role}_regularizer_loss": int(rows.start == 0) for role in ROLES}

    def _uses(self, role: str) -> bool:
        weight = getattr(self, f"{role}_regularizer_weight")
        return isinstance(weight, Mapping) or bool(weight)

    def _penalty(self, role: str, queries: Output | None, documents: Output) -> Tensor:
        """A penalty times its weight."""
        found = self.regularizer(role)(queries, documents)
        if not isinstance(found, Tensor) or found.ndim:
            raise LossError(f"{type(self).__name__}.{role}_regularizer", expected="a scalar", got=described(found))
        return found * self.weight(role)

    def _eased(self, role: str) -> float:
        """How much of a scheduled weight there is yet: while it is low, many active terms are no sign of anything."""
        given = getattr(self, f"{role}_regularizer_weight")
        if not isinstance(given, Mapping):
            return 1.0
        return min(1.0, scheduled(given, self.progress) / scheduled(given, 1.0))

    def _regularized(self, columns: Sequence[Output], roles: Sequence[str]) -> dict[str, tuple[Output | None, Output]]:
        """The queries and documents that each penalty of these roles is called with, as far as it is used."""
        first = 0 if self.use_document_regularizer_only else 1
        used = [role for role in roles if self._uses(role)]
        documents = self._joined(columns[first:], "documents") if {"document", "joint"} & {*used} else None
        queries = self._joined(columns[:first], "queries") if {"query", "joint"} & {*used} else None
        sides = {"document": (None, documents), "query": (None, queries), "joint": (queries, documents)}
        return {role: sides[role] for role in used}

    def _joined(self, columns: Sequence[Output], what: str) -> Output:
        """One record of columns, as far as the model read them."""
        embeddings = [column.embedding for column in columns if column.embedding is not None]
        if not embeddings:
            raise LossError(
                f"the batch for {type(self).__name__}", expected=f"{what} to regularize", got="none",
                fix="set use_document_regularizer_only where columns are no queries with documents",
            )  # fmt: skip
        return Output(embeddings[0] if len(embeddings) == 1 else torch.cat(embeddings))

    def _built(self, role: str, given: str | Regularizer | None) -> Regularizer | None:
        """The regularizer of an expression, or the object that was given."""
        made: Regularizer | None = build(given, kind="regularizer") if isinstance(given, str | Mapping) else given
        if made is not None and (isinstance(made, type) or not callable(made)):
            raise LossError(
                f"{type(self).__name__}.{role}_regularizer", expected="the name of a regularizer, or a callable object",
                got=repr(made),
            )  # fmt: skip
        return made

    def _check_options(self) -> None:
        name = type(self).__name__
        for role in ROLES:
            self._check_weight(role)
        for role in CONTROLLED:
            self._check_role(f"{name}.{role}", role)
        if self.use_document_regularizer_only:
            for role in ("query", "joint"):
                if getattr(self, f"{role}_regularizer_weight") is not None:
                    raise LossError(
                        f"{name}.{role}_regularizer_weight",
                        expected="None with use_document_regularizer_only, where no column holds queries",
                        got=repr(getattr(self, f"{role}_regularizer_weight")),
                    )
        elif self._reads_single_texts():
            raise LossError(
                f"{name}.use_document_regularizer_only", expected="True around a loss of single texts",
                got=f"False around {type(self.loss).__name__}",
            )  # fmt: skip

    def _reads_single_texts(self) -> bool:
        """Whether the trained encoder always reads one column."""
        read = None if self.reads is None else self.reads.get("model")
        alone = bool(self.formats) and all(form.arity[1] == 1 for form in self.formats)
        return alone or (read is not None and len(read) == 1)

    def _check_weight(self, role: str) -> None:
        option = f"{type(self).__name__}.{role}_regularizer_weight"
        weight = getattr(self, f"{role}_regularizer_weight")
        if isinstance(weight, Mapping):
            check_schedule(option, weight)
            for end in ("from", "to"):
                check_number(f"{option}.{end}", weight.get(end, 0.0), "0 or more")
        elif weight is not None or role == "document":
            check_number(option, weight, "0 or more")

    def _check_role(self, option: str, role: str) -> None:
        regularizer, threshold, wanted = (
            getattr(self, f"{role}_{part}") for part in ("regularizer", "regularizer_threshold", "active")
        )
        if threshold is not None:
            check_number(f"{option}_regularizer_threshold", threshold, "0 or more")
            if regularizer is not None:
                raise LossError(
                    f"{option}_regularizer_threshold", expected="None beside a regularizer", got=repr(threshold),
                    fix="give the threshold to the regularizer",
                )  # fmt: skip
        if wanted is not None:
            check_number(f"{option}_active", wanted, "a positive number")
        unread = {"regularizer": regularizer, "regularizer_threshold": threshold, "active": wanted}
        for part, value in unread.items():
            if value is not None and getattr(self, f"{role}_regularizer_weight") is None:
                raise LossError(f"{option}_regularizer_weight", expected=f"a number beside {role}_{part}", got="None")
        if wanted is not None and not self._final(role):
            raise LossError(f"{option}_active", expected="a weight to move that is not 0", got="0")

    def _final(self, role: str) -> float:
        """The weight of a penalty at the end of the training, before it is moved."""
        weight = getattr(self, f"{role}_regularizer_weight")
        return scheduled(weight, 1.0) if isinstance(weight, Mapping) else weight
