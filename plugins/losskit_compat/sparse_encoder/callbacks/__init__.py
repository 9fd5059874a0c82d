"""The incumbent's schedule of the weights of SpladeLoss."""

from .splade_callbacks import SchedulerType, SpladeRegularizerWeightSchedulerCallback

__all__ = ["SchedulerType", "SpladeRegularizerWeightSchedulerCallback"]
