"""Embedding distillation: the student's embeddings drawn to a teacher's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from losskit import Card, Encoder, Execution, Format, Loss, Output
from losskit.errors import LossError
from losskit.math import pairwise_cosine, pairwise_distance, promoted

__all__ = ["DISTANCES", "Distance", "EmbedDistillLoss", "EmbeddingDistillation", "embed_distill"]

Distance = Literal["cosine", "mse", "l2"]


def embed_distill(
    student: Float[Tensor, "rows dim"], teacher: Float[Tensor, "rows dim"], distance: Distance = "cosine"
) -> Float[Tensor, ""]:
    """mean over rows of 1 - cos(s_i, t_i), of mean_k (s_ik - t_ik)^2, or of |s_i - t_i|.

    Args:
        student: embeddings.
        teacher: what they should be; without gradient.
        distance: "cosine", "mse" or "l2".

    >>> embed_distill(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0]]), "mse")
    tensor(12.5000)
    """
    return DISTANCES[distance](student, teacher)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": lambda student, teacher: 1 - pairwise_cosine(student, teacher).mean(),
    "mse": mse_loss,
    "l2": lambda student, teacher: pairwise_distance(student, teacher).mean(),
}
"""What the family differs in."""


class EmbeddingDistillation(Loss):
    """Base of losses between embeddings and a teacher's: where these come from, and how wide they are.

    The teacher's are labels, [n, d'] for all columns or [n, columns, d']; or those of a frozen `teacher`, which reads
    the first column and is the target of all.

    Args:
        model: an encoder that embeds.
        distance: what is averaged.
        projection: the teacher's width, where the student's embeddings are first taken through a linear layer.
        teacher: an encoder that is not trained; None: labels bring its embeddings.
        execution: how records come about.
    """

    compares_rows = False

    def __init__(
        self,
        model: Any,
        distance: Distance,
        projection: int | None,
        teacher: Encoder | None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        if distance not in DISTANCES:
            expected = f"one of {', '.join(DISTANCES)}"
            raise LossError(f"{type(self).__name__}.distance", expected=expected, got=repr(distance))
        if projection is not None and projection < 1:
            raise LossError(f"{type(self).__name__}.projection", expected="a positive integer", got=repr(projection))
        self.distance = distance
        self.projection = projection
        self.projection_layer = None if projection is None else self.owned_linear(projection)
        self.frozen = {} if teacher is None else {"teacher": teacher}

    @property
    def teacher(self) -> Encoder | None:
        """The frozen teacher, if there is one."""
        return self.frozen.get("teacher")

    @property
    def formats(self) -> tuple[Format, ...]:
        """With a teacher those without labels, else those with."""
        wanted = "embedding" if self.teacher is None else "none"
        return tuple(form for form in super().formats if form.labels == wanted)

    @property
    def fixed_dimension(self) -> bool:
        """A projection has the encoder's width, and a teacher's embeddings are not cut as labels are."""
        return self.projection_layer is not None or self.teacher is not None

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The mean distance of the tuples `rows`, over all columns."""
        if rows.start == rows.stop:
            return 0 * sum(column.embedding.sum() for column in columns)
        teachers = self._teachers(columns, labels)
        means = [
            embed_distill(self._projected(column[rows].embedding), teacher[rows], self.distance)
            for column, teacher in zip(columns, teachers, strict=True)
        ]
        return means[0] if len(means) == 1 else torch.stack(means).mean()

    def _projected(self, embedding: Tensor) -> Tensor:
        layer = self.projection_layer
        if layer is None:
            return promoted(embedding)
        return layer(promoted(embedding).to(layer.weight.dtype))

    def _teachers(self, columns: Sequence[Output], labels: Tensor | None) -> list[Tensor]:
        """The targets of each column, in the student's precision."""
        found = columns[0].parts["teacher"].embedding if labels is None else labels
        student = columns[0].embedding
        width = student.shape[1] if self.projection_layer is None else self.projection_layer.out_features
        if found.shape[-1] != width:
            raise LossError(
                f"the teacher's embeddings for {type(self).__name__}",
                expected=f"width {width}, as the student's",
                got=str(found.shape[-1]),
                fix=f"set projection={found.shape[-1]}",
            )
        if found.ndim == 3 and found.shape[1] != len(columns):
            raise LossError(
                f"labels for {type(self).__name__}",
                expected=f"an embedding for each of {len(columns)} columns, or one for all",
                got=f"shape {list(found.shape)}",
            )
        like = promoted(student) if self.projection_layer is None else self.projection_layer.weight
        found = found.detach().to(like.dtype)
        return [found] * len(columns) if found.ndim == 2 else list(found.unbind(1))


class EmbedDistillLoss(EmbeddingDistillation):
    """Draws every column's embeddings to a teacher's, by cosine, mean squared error or Euclidean distance.

    Args:
        model: an encoder that embeds.
        distance: "cosine", "mse" or "l2".
        projection: the teacher's width, where it is not the student's; the loss owns such a layer.
        teacher: an encoder that is not trained and reads the first column; None: labels bring its embeddings.
        execution: how records come about.

    Raises:
        LossError: an unknown distance, or a projection from an encoder of unknown dimension.
    """

    card = Card(
        formats=[Format(inputs=["text+"], labels="embedding"), Format(inputs=["text+"], labels="none")],
        encoders=["dense", "sparse"],
        reads={"model": None, "teacher": [0]},
        memory="1",
        formula="mean over columns and rows of distance(s, t)",
        citation="""@misc{kim2023embeddistill,
  title = {{EmbedDistill}: A Geometric Knowledge Distillation for Information Retrieval},
  author = {Kim, Seungyeon and Rawat, Ankit Singh and Zaheer, Manzil and Jayasumana, Sadeep and
            Sadhanala, Veeranjaneyulu and Jitkrittum, Wittawat and Menon, Aditya Krishna and
            Fergus, Rob and Kumar, Sanjiv},
  year = {2023},
  eprint = {2301.12005},
  archivePrefix = {arXiv}
}""",
        recommends=["matryoshka"],
        relations=["margin-mse and distill-kl-div learn a teacher's scores instead of its embeddings."],
        requirements=["Embeddings of a teacher as labels, or the teacher itself as an option."],
    )

    def __init__(
        self,
        model: Any = None,
        distance: Distance = "cosine",
        projection: int | None = None,
        teacher: Encoder | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, distance, projection, teacher, execution=execution)
