"""The incumbent's losses of cross-encoders: class names, constructors and attributes, over losskit's losses.

Modules have the incumbent's names too: `losskit_compat.cross_encoder.losses.lambda_loss` and so on.
"""

from .adr_mse import ADRMSELoss
from .binary_cross_entropy import BinaryCrossEntropyLoss
from .cached_multiple_negatives_ranking import CachedMultipleNegativesRankingLoss
from .cross_entropy import CrossEntropyLoss
from .lambda_loss import (
    LambdaLoss,
    LambdaRankScheme,
    NDCGLoss1Scheme,
    NDCGLoss2PPScheme,
    NDCGLoss2Scheme,
    NoWeightingScheme,
)
from .list_mle import ListMLELoss
from .list_net import ListNetLoss
from .margin_mse import MarginMSELoss
from .mse import MSELoss
from .multiple_negatives_ranking import MultipleNegativesRankingLoss
from .plist_mle import PListMLELambdaWeight, PListMLELoss
from .rank_net import RankNetLoss

__all__ = [
    "ADRMSELoss",
    "BinaryCrossEntropyLoss",
    "CachedMultipleNegativesRankingLoss",
    "CrossEntropyLoss",
    "LambdaLoss",
    "LambdaRankScheme",
    "ListMLELoss",
    "ListNetLoss",
    "MSELoss",
    "MarginMSELoss",
    "MultipleNegativesRankingLoss",
    "NDCGLoss1Scheme",
    "NDCGLoss2PPScheme",
    "NDCGLoss2Scheme",
    "NoWeightingScheme",
    "PListMLELambdaWeight",
    "PListMLELoss",
    "RankNetLoss",
]
