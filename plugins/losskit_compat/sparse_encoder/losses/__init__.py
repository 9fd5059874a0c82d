"""The incumbent's losses of sparse encoders: class names, constructors and attributes, over losskit's losses.

Modules have the incumbent's names too: `losskit_compat.sparse_encoder.losses.sparse_cosent` and so on.
"""

from .cached_splade import CachedSpladeLoss
from .csr import CSRLoss, CSRReconstructionLoss
from .flops import FlopsLoss
from .sparse_angle import SparseAnglELoss
from .sparse_cosent import SparseCoSENTLoss
from .sparse_cosine_similarity import SparseCosineSimilarityLoss
from .sparse_distill_kl_div import SparseDistillKLDivLoss
from .sparse_margin_mse import SparseMarginMSELoss
from .sparse_mse import SparseMSELoss
from .sparse_multiple_negatives_ranking import SparseMultipleNegativesRankingLoss
from .sparse_triplet import SparseTripletLoss
from .splade import SpladeLoss

__all__ = [
    "CSRLoss",
    "CSRReconstructionLoss",
    "CachedSpladeLoss",
    "FlopsLoss",
    "SparseAnglELoss",
    "SparseCoSENTLoss",
    "SparseCosineSimilarityLoss",
    "SparseDistillKLDivLoss",
    "SparseMSELoss",
    "SparseMarginMSELoss",
    "SparseMultipleNegativesRankingLoss",
    "SparseTripletLoss",
    "SpladeLoss",
]
