"""The incumbent's losses of multi-vector encoders: class names, constructors and attributes, over losskit's losses."""

from .cached_multiple_negatives_ranking import CachedMultiVectorMultipleNegativesRankingLoss
from .distill_kl_div import MultiVectorDistillKLDivLoss
from .margin_mse import MultiVectorMarginMSELoss
from .multiple_negatives_ranking import MultiVectorMultipleNegativesRankingLoss

__all__ = [
    "CachedMultiVectorMultipleNegativesRankingLoss",
    "MultiVectorDistillKLDivLoss",
    "MultiVectorMarginMSELoss",
    "MultiVectorMultipleNegativesRankingLoss",
]
