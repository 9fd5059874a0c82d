"""Mean squared error between embeddings: the student learns a teacher's vectors, also in another language."""

from __future__ import annotations

from typing import Any

from losskit import Card, Encoder, Execution, Format

from .embed_distill import EmbeddingDistillation

__all__ = ["MSELoss"]


class MSELoss(EmbeddingDistillation):
    """Draws every column's embeddings to a teacher's by mean squared error.

    Args:
        model: an encoder that embeds.
        projection: the teacher's width, where it is not the student's; the loss owns such a layer.
        teacher: an encoder that is not trained and reads the first column; None: labels bring its embeddings.
        execution: how records come about.

    Raises:
        LossError: a projection from an encoder of unknown dimension.
    """

    card = Card(
        formats=[Format(inputs=["text+"], labels="embedding"), Format(inputs=["text+"], labels="none")],
        encoders=["dense", "sparse"],
        reads={"model": None, "teacher": [0]},
        memory="1",
        formula="mean over columns, rows and dimensions of (s - t)^2",
        citation="""@inproceedings{reimers2020making,
  title = {Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation},
  author = {Reimers, Nils and Gurevych, Iryna},
  booktitle = {Proceedings of EMNLP},
  year = {2020}
}""",
        recommends=["matryoshka"],
        relations=["embed-distill has other distances.", "score-mse compares scores, margin-mse their differences."],
        requirements=[
            "Embeddings of a teacher as labels, or the teacher itself as an option.",
            "For another language pairs (sentence, translation): both learn what the teacher makes of the first.",
        ],
    )

    def __init__(
        self,
        model: Any = None,
        projection: int | None = None,
        teacher: Encoder | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, "mse", projection, teacher, execution=execution)
