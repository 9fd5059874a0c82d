"""What the classes of this package share: the incumbent's attributes, and its way of being called."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, ClassVar

from torch import Tensor

from losskit import Direct, Execution, GradCache, Loss
from losskit.loss import Value
from losskit.protocols import Features

from .foreign import ForeignLoss
from .functions import Distance, MatrixFunction, as_similarity, name_of_function

__all__ = ["Cached", "Distanced", "Incumbent", "Scored", "Summed", "direct", "formerly", "renamed"]

logger = logging.getLogger("losskit")


def direct(gather_across_devices: bool) -> Execution | None:
    """The execution of a loss that is not cached; None leaves it to a loss around it."""
    return Direct(gather=True) if gather_across_devices else None


def renamed(name: str) -> property:
    """An attribute under the incumbent's name, kept under losskit's name."""
    return property(attrgetter(name), lambda self, value: self.exchange(name, value), doc=f"As `{name}`.")


def formerly(**names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A constructor that takes arguments under their former names too: `former="present"`."""

    def decorated(constructor: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(constructor)
        def with_present_names(*args: Any, **options: Any) -> None:
            for former in names.keys() & options:
                warnings.warn(f"{former} is deprecated: write {names[former]}", DeprecationWarning, stacklevel=2)
                options.setdefault(names[former], options.pop(former))
            constructor(*args, **options)

        return with_present_names

    return decorated


class Incumbent(Loss):
    """A loss under the incumbent's name; what it computes is what the native class beside it computes."""

    configuration: ClassVar[tuple[str, ...]] = ()
    _told: bool = False

    def __setattr__(self, name: str, value: Any) -> None:
        # A property comes first: nn.Module would keep a module as a child of that name and ask no setter.
        # `Loss` counts on that for its own: trainers look for the child `model`.
        if isinstance(getattr(type(self), name, None), property) and name not in vars(Loss):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(
        self,
        sentence_features: Iterable[Features],
        labels: Tensor | Sequence[Tensor] | None = None,
        prompt: str | None = None,
        task: str | None = None,
    ) -> Value:
        """The loss of a batch: features per column, or of a cross-encoder columns of texts, and labels."""
        return super().forward(list(sentence_features), self._labels_that_are_read(labels), prompt, task)

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Value:
        """The loss of embeddings, one tensor per column."""
        return super().compute_loss_from_embeddings(embeddings, self._labels_that_are_read(labels))

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as model cards print them."""
        return {name: _described(getattr(self, name)) for name in self.configuration}

    @property
    def gather_across_devices(self) -> bool:
        """Whether it scores against the columns of all processes."""
        return self.execution.gather

    @gather_across_devices.setter
    def gather_across_devices(self, gather: bool) -> None:
        self.execution = replace(self.execution, gather=gather)

    def exchange(self, name: str, value: Any) -> None:
        """Set an attribute, also one that is a module to what is none."""
        self._modules.pop(name, None)
        setattr(self, name, value)

    def _labels_that_are_read(self, labels: Tensor | Sequence[Tensor] | None) -> Tensor | Sequence[Tensor] | None:
        """The labels if the loss reads any; the incumbent's trainers hand them to every loss."""
        if labels is None or not self.formats or any(item.labels != "none" for item in self.formats):
            return labels
        if not self._told:
            self._told = True
            logger.warning("%s learns from the columns alone: it leaves the labels unread", type(self).__name__)
        return None


class Scored(Incumbent):
    """A loss with `similarity_fct`."""

    function_kind: ClassVar[Callable[[Any], Any]] = MatrixFunction

    @property
    def similarity_fct(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The function as it was given."""
        return self.__dict__["_similarity_fct"]

    @similarity_fct.setter
    def similarity_fct(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        # Not as a child: the parameters of a learned function belong to the similarity.
        self.__dict__["_similarity_fct"] = function
        self.exchange("similarity", as_similarity(function, type(self).function_kind))


class Distanced(Incumbent):
    """A loss with `distance_metric`: a function of two tensors of embeddings."""

    function_kind: ClassVar[Callable[[Any], Any]] = Distance

    @property
    def distance_metric(self) -> Callable[..., Tensor]:
        """The function as it was given."""
        return self.__dict__["_distance_metric"]

    @distance_metric.setter
    def distance_metric(self, function: Callable[..., Tensor]) -> None:
        self.__dict__["_distance_metric"] = function
        self.exchange("similarity", as_similarity(function, type(self).function_kind))


class Cached(Incumbent):
    """A loss with gradient caching, whose settings are attributes."""

    show_progress_bar: bool

    @property
    def mini_batch_size(self) -> int:
        """Items per forward of the encoder."""
        return self._mini_batch_size

    @mini_batch_size.setter
    def mini_batch_size(self, size: int) -> None:
        self._mini_batch_size = size
        if isinstance(self.execution, GradCache):
            self.execution = replace(self.execution, mini_batch_size=size)

    @property
    def mini_batch_num_tokens(self) -> int | None:
        """Padded tokens per forward instead, if given."""
        return self._mini_batch_num_tokens

    @mini_batch_num_tokens.setter
    def mini_batch_num_tokens(self, tokens: int | None) -> None:
        self._mini_batch_num_tokens = tokens
        if isinstance(self.execution, GradCache):
            self.execution = replace(self.execution, mini_batch_tokens=tokens)

    @property
    def citation(self) -> str:
        """BibTeX of the loss and of gradient caching."""
        return f"{super().citation}\n\n{GRADIENT_CACHING}"


GRADIENT_CACHING = """@misc{gao2021scaling,
  title = {Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup},
  author = {Gao, Luyu and Zhang, Yunyi and Han, Jiawei and Callan, Jamie},
  year = {2021},
  eprint = {2101.06983},
  archivePrefix = {arXiv}
}"""


class Summed(Incumbent):
    """A loss of several components that returns their sum."""

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The sum of the components."""
        return _total(super().forward(sentence_features, labels))

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """The sum of the components."""
        return _total(super().compute_loss_from_embeddings(embeddings, labels))


def _total(value: Value) -> Tensor:
    total: Tensor = sum(value.values()) if isinstance(value, dict) else value
    return total


def _described(value: Any) -> Any:
    if isinstance(value, Loss):
        return type(value.module if isinstance(value, ForeignLoss) else value).__name__
    return name_of_function(value) if callable(value) else value
