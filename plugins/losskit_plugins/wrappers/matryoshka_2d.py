"""Two-dimensional Matryoshka: a model that serves cut to fewer layers and fewer dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from losskit import Card, Execution, Loss, Output, Wrapper
from losskit.loss import Value

from .adaptive_layer import AdaptiveLayerLoss
from .matryoshka import Axis, MatryoshkaLoss

__all__ = ["Matryoshka2dLoss"]


class Matryoshka2dLoss(Wrapper):
    """Trains a transformer so that the first dimensions of its first layers serve alone.

    It is `adaptive-layer` around `matryoshka` around a loss.

    Args:
        model: the encoder, which must have layers.
        loss: what is computed at every layer and size.
        dims: as for `matryoshka`.
        weights: as for `matryoshka`.
        layers_per_step: as for `adaptive-layer`.
        dims_per_step: as for `matryoshka`.
        normalize: as for `matryoshka`.
        last_layer_weight: as for `adaptive-layer`.
        prior_layers_weight: as for `adaptive-layer`.
        kl_weight: as for `adaptive-layer`, at full size.
        kl_temperature: as for `adaptive-layer`.
        layer_weighting: as for `adaptive-layer`.
        kl_over: as for `adaptive-layer`.
        axis: as for `matryoshka`.
        execution: how records come about.

    Raises:
        LossError: what `matryoshka` or `adaptive-layer` refuses.
    """

    card = Card(
        encoders=["dense"],
        needs=["layers"],
        stochastic=True,
        memory="B",
        formula="adaptive-layer(matryoshka(loss))",
        citation="""@misc{li20242dmatryoshkasentenceembeddings,
  title = {2D Matryoshka Sentence Embeddings},
  author = {Li, Xianming and Li, Zongxi and Li, Jing and Xie, Haoran and Li, Qing},
  year = {2024},
  eprint = {2402.14776},
  archivePrefix = {arXiv}
}""",
        relations=["adaptive-layer around matryoshka, in one name."],
        deviations={"gradient": "the last layer teaches the others by the divergence, and gets no gradient from it"},
    )
    identity = {"dims": [8], "prior_layers_weight": 0.0, "kl_weight": 0.0}  # noqa: RUF012 - read as it stands

    def __init__(
        self,
        model: Any,
        loss: Loss,
        dims: tuple[int, ...],
        weights: tuple[float, ...] | None = None,
        layers_per_step: int = 1,
        dims_per_step: int = 1,
        normalize: bool | None = None,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_weight: float = 1.0,
        kl_temperature: float = 0.3,
        layer_weighting: Literal["uniform", "log", "linear"] = "uniform",
        kl_over: Literal["directions", "dimensions"] = "directions",
        axis: Axis = "dimensions",
        *,
        execution: Execution | None = None,
    ) -> None:
        sizes = MatryoshkaLoss(model, loss, dims, weights, dims_per_step, normalize, axis)
        layers = AdaptiveLayerLoss(
            model,
            sizes,
            layers_per_step,
            last_layer_weight,
            prior_layers_weight,
            kl_weight,
            kl_temperature,
            layer_weighting,
            kl_over,
        )
        super().__init__(model, layers, execution=execution)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """That of `adaptive-layer`."""
        return self.loss.compute(columns, labels, rows)

    def get_config_dict(self) -> dict[str, Any]:
        """The options of both, and the loss that both are around."""
        layers = self.loss
        assert isinstance(layers, AdaptiveLayerLoss)
        return {**layers.get_config_dict(), **layers.loss.get_config_dict()}
