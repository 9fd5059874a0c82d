"""The incumbent's dense losses: class names, constructors and attributes, over losskit's losses."""

from .classification import SoftmaxLoss
from .decoding import DenoisingAutoEncoderLoss
from .distances import BatchHardTripletLossDistanceFunction, SiameseDistanceMetric, TripletDistanceMetric
from .distillation import DistillKLDivLoss, EmbedDistillLoss, MarginMSELoss, MSELoss
from .gist import CachedGISTEmbedLoss, GISTEmbedLoss
from .margins import ContrastiveLoss, MegaBatchMarginLoss, OnlineContrastiveLoss, TripletLoss
from .mined import BatchAllTripletLoss, BatchHardSoftMarginTripletLoss, BatchHardTripletLoss, BatchSemiHardTripletLoss
from .modifiers import AdaptiveLayerLoss, Matryoshka2dLoss, MatryoshkaLoss
from .pairs import AnglELoss, CoSENTLoss, CosineSimilarityLoss
from .ranking import (
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
    MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
)
from .regularization import GlobalOrthogonalRegularizationLoss
from .tension import ContrastiveTensionDataLoader, ContrastiveTensionLoss, ContrastiveTensionLossInBatchNegatives

__all__ = [
    "AdaptiveLayerLoss",
    "AnglELoss",
    "BatchAllTripletLoss",
    "BatchHardSoftMarginTripletLoss",
    "BatchHardTripletLoss",
    "BatchHardTripletLossDistanceFunction",
    "BatchSemiHardTripletLoss",
    "CachedGISTEmbedLoss",
    "CachedMultipleNegativesRankingLoss",
    "CachedMultipleNegativesSymmetricRankingLoss",
    "CoSENTLoss",
    "ContrastiveLoss",
    "ContrastiveTensionDataLoader",
    "ContrastiveTensionLoss",
    "ContrastiveTensionLossInBatchNegatives",
    "CosineSimilarityLoss",
    "DenoisingAutoEncoderLoss",
    "DistillKLDivLoss",
    "EmbedDistillLoss",
    "GISTEmbedLoss",
    "GlobalOrthogonalRegularizationLoss",
    "MSELoss",
    "MarginMSELoss",
    "Matryoshka2dLoss",
    "MatryoshkaLoss",
    "MegaBatchMarginLoss",
    "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss",
    "OnlineContrastiveLoss",
    "SiameseDistanceMetric",
    "SoftmaxLoss",
    "TripletDistanceMetric",
    "TripletLoss",
]
