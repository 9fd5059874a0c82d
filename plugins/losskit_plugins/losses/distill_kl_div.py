"""Distillation of a teacher's distribution over candidates."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, ScoreLoss, Similarity
from losskit.errors import check_number
from losskit.math import masked_log_softmax, masked_softmax
from losskit.score_loss import Activation, single_documents

__all__ = ["DistillKLDivLoss", "distill_kl_div"]

logger = logging.getLogger("losskit")

SPREAD = 100.0
"""Of scores that differ by more, softmax gives the lower one probability 0 in float32."""


def distill_kl_div(
    scores: Float[Tensor, "queries documents"],
    labels: Float[Tensor, "queries documents"],
    *,
    where: Bool[Tensor, "queries documents"] | None = None,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Float[Tensor, " queries"]:
    """t_s^2 sum_k p_k (log p_k - log q_k) of each query, with p = softmax(y / t_t) and q = softmax(s / t_s).

    Args:
        scores: the student's, of each query's documents.
        labels: the teacher's; minus infinity gives a document the probability 0.
        where: True where there is a document; None: everywhere.
        student_temperature: divides the student's scores.
        teacher_temperature: divides the teacher's.

    A list without documents, or without one that the teacher scores, counts as a loss of 0.

    >>> import torch
    >>> scores, labels = torch.zeros(1, 2), torch.tensor([[0.0, -float("inf")]])
    >>> distill_kl_div(scores, labels)
    tensor([0.6931])
    """
    student, teacher = scores / student_temperature, labels / teacher_temperature
    if where is None:  # the masked forms, at less cost
        student, teacher = student.log_softmax(1), teacher.softmax(1).nan_to_num(0.0)
    else:
        student = masked_log_softmax(student, where)
        teacher = masked_softmax(teacher, where & (labels > float("-inf")))
    return functional.kl_div(student, teacher, reduction="none").sum(1) * student_temperature**2


class DistillKLDivLoss(ScoreLoss):
    """Brings the distribution of scores over a query's candidates to that of a teacher.

    Args:
        model: any encoder: a cross-encoder's scores, or the similarities of an embedding one.
        temperature: of both sides: higher means flatter distributions.
        student_temperature: of the student; None: `temperature`.
        teacher_temperature: of the teacher; None: `temperature`.
        activation: applied to the scores first.
        similarity: for encoders that embed; None: dot on dense and sparse, maxsim on multi-vector.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.

    Raises:
        LossError: a temperature that is not a positive number.
    """

    card = Card(
        formats=[
            Format(inputs=["query", "positive", "negative+"], labels="scores", outputs=1),
            Format(inputs=["query", "documents"], labels="scores", outputs=1),
        ],
        encoders=["dense", "sparse", "multi-vector", "cross-encoder"],
        memory="n",
        formula="mean over queries of t_s^2 KL(softmax(y / t_t) || softmax(s / t_s))",
        citation="""@misc{lin2020distilling,
  title = {Distilling Dense Representations for Ranking using Tightly-Coupled Teachers},
  author = {Lin, Sheng-Chieh and Yang, Jheng-Hong and Lin, Jimmy},
  year = {2020},
  eprint = {2010.11386},
  archivePrefix = {arXiv}
}""",
        requirements=["Scores of a teacher that differ within a list, in proportion to its temperature."],
    )
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "dot", "sparse": "dot", "multi-vector": "maxsim"}
    uses_weights = True

    def __init__(
        self,
        model: Any = None,
        temperature: float = 1.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
        activation: Activation = "identity",
        similarity: str | Similarity | None = None,
        scale: float = 1.0,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, activation=activation, similarity=similarity, scale=scale, execution=execution)
        self.temperature = temperature
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        for option in ("temperature", "student_temperature", "teacher_temperature"):
            given = getattr(self, option)
            if given is not None:
                check_number(f"{type(self).__name__}.{option}", given, "a positive number")
        self._spread_seen = False

    def check_labels(self, columns: int, labels: Tensor) -> None:
        """Of the first batch, warn if the teacher's probabilities are too far apart for float32 to hold."""
        super().check_labels(columns, labels)
        if self._spread_seen or not labels.numel():
            return
        self._spread_seen = True
        if labels.ndim == 1 and columns < 3:
            return  # lists of any length, end to end
        lists = labels.reshape(-1, columns - 1) if labels.ndim == 1 else labels
        spread = float((lists.amax(1) - lists.amin(1)).max())
        temperature = self.temperature if self.teacher_temperature is None else self.teacher_temperature
        if SPREAD < spread / temperature < math.inf:
            logger.warning(
                "%s: teacher_temperature %g gives candidates probability 0, of which nothing is learned: "
                "the teacher's scores span up to %g within a list; raise it above %.3g",
                type(self).__name__,
                temperature,
                spread,
                spread / SPREAD,
            )

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A teacher that gives all candidates of a query one score prefers none."""
        if labels is None or labels.numel() <= rows:
            return single_documents(rows, labels)
        lists = labels.reshape(rows, -1) if labels.numel() == rows * (columns - 1) else labels
        same = lists == lists[..., :1]
        return "the teacher's scores are equal within every list" if bool(same.all()) else ""

    def per_query(self, scores: Tensor, labels: Tensor, where: Tensor | None) -> Tensor:
        """The loss of each scored list."""
        return distill_kl_div(
            scores,
            labels.to(scores.dtype),
            where=where,
            student_temperature=self.temperature if self.student_temperature is None else self.student_temperature,
            teacher_temperature=self.temperature if self.teacher_temperature is None else self.teacher_temperature,
        )
