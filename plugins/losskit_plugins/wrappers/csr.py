"""CSR: a loss on sparse codes, and what keeps the dense embedding in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from losskit import Card, Execution, Loss, Output, Wrapper
from losskit.errors import LossError, check_number
from losskit_plugins.losses.csr_reconstruction import TERMS, count_active, reconstruction

__all__ = ["CSRLoss"]


class CSRLoss(Wrapper):
    """Adds to a loss on sparse codes that the dense embeddings can be had back from them.

    Args:
        model: an encoder with a sparse auto-encoder.
        loss: any loss on its codes.
        beta: weight of the auxiliary term, which revives latents that are never used.
        gamma: weight of the loss.
        execution: how records come about.

    Raises:
        LossError: a weight that is no number, or a loss that has these terms already.
    """

    card = Card(
        encoders=["sparse"],
        needs=["backbone", "decoded_k", "decoded_4k", "decoded_aux", "decoded_k_pre_bias"],
        memory="B",
        formula="csr-reconstruction(beta) + gamma loss",
        citation="""@misc{wen2025matryoshkarevisitingsparsecoding,
  title = {Beyond Matryoshka: Revisiting Sparse Coding for Adaptive Representation},
  author = {Wen, Tiansheng and Wang, Yifei and Zeng, Zequn and others},
  year = {2025},
  eprint = {2503.01776},
  archivePrefix = {arXiv}
}""",
        recommends=["multiple-negatives-ranking"],
        relations=["csr-reconstruction: these terms alone."],
        requirements=["The encoder must be csr, or another that gives reconstructions."],
        deviations={
            "gradient": "what dead latents are to make up for is a target: its reconstruction gets no gradient"
        },
    )

    def __init__(
        self, model: Any, loss: Loss, beta: float = 0.1, gamma: float = 1.0, *, execution: Execution | None = None
    ) -> None:
        super().__init__(model, loss, execution=execution)
        name = type(self).__name__
        check_number(f"{name}.beta", beta)
        check_number(f"{name}.gamma", gamma)
        if "decoded_k" in loss.needs:
            raise LossError(
                f"{name}.loss", expected="a loss on sparse codes", got=f"{type(loss).__name__}, which reconstructs too",
                fix="leave one of the two out",
            )  # fmt: skip
        self.beta = beta
        self.gamma = gamma

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> dict[str, Tensor]:
        """The terms of the reconstruction, and `base_loss` or the keys of a loss that has some."""
        value = self.loss.compute(columns, labels, rows)
        own = value if isinstance(value, dict) else {"base_loss": value}
        return reconstruction(columns, rows, beta=self.beta) | {key: self.gamma * each for key, each in own.items()}

    def denominator(
        self, columns: Sequence[Output], labels: Tensor | None, rows: slice
    ) -> int | Tensor | dict[str, Any]:
        """That of the inner loss for its components; reconstructions are means over rows."""
        inner: Any = self.loss.denominator(columns, labels, rows)
        found: dict[str, Any] = inner if isinstance(inner, dict) else {"": inner}
        return found | dict.fromkeys(TERMS, rows.stop - rows.start)

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        """Counts active latents, then as the inner loss."""
        count_active(self, columns)
        return super().observe(columns, labels)
