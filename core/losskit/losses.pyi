"""The built-in losses and wrappers by name, for type checkers; a test compares with what is registered."""

from losskit_plugins.losses.cosent import CoSENTLoss as CoSENTLoss
from losskit_plugins.losses.list_net import ListNetLoss as ListNetLoss
from losskit_plugins.losses.multiple_negatives_ranking import (
    MultipleNegativesRankingLoss as MultipleNegativesRankingLoss,
)
from losskit_plugins.wrappers.matryoshka import MatryoshkaLoss as MatryoshkaLoss
from losskit_plugins.wrappers.weighted_sum import WeightedSumLoss as WeightedSumLoss

def __getattr__(name: str) -> type: ...
