"""The built-in losses and wrappers by name, for type checkers; a test compares with what is registered."""

from losskit_plugins.losses.adr_mse import ADRMSELoss as ADRMSELoss
from losskit_plugins.losses.angle import AnglELoss as AnglELoss
from losskit_plugins.losses.batch_all_triplet import BatchAllTripletLoss as BatchAllTripletLoss
from losskit_plugins.losses.batch_hard_soft_margin_triplet import (
    BatchHardSoftMarginTripletLoss as BatchHardSoftMarginTripletLoss,
)
from losskit_plugins.losses.batch_hard_triplet import BatchHardTripletLoss as BatchHardTripletLoss
from losskit_plugins.losses.batch_semi_hard_triplet import BatchSemiHardTripletLoss as BatchSemiHardTripletLoss
from losskit_plugins.losses.binary_cross_entropy import BinaryCrossEntropyLoss as BinaryCrossEntropyLoss
from losskit_plugins.losses.contrastive import ContrastiveLoss as ContrastiveLoss
from losskit_plugins.losses.contrastive_tension import ContrastiveTensionLoss as ContrastiveTensionLoss
from losskit_plugins.losses.contrastive_tension_in_batch_negatives import (
    ContrastiveTensionLossInBatchNegatives as ContrastiveTensionLossInBatchNegatives,
)
from losskit_plugins.losses.cosent import CoSENTLoss as CoSENTLoss
from losskit_plugins.losses.cosine_similarity import CosineSimilarityLoss as CosineSimilarityLoss
from losskit_plugins.losses.cross_entropy import CrossEntropyLoss as CrossEntropyLoss
from losskit_plugins.losses.cross_multiple_negatives_ranking import (
    CrossMultipleNegativesRankingLoss as CrossMultipleNegativesRankingLoss,
)
from losskit_plugins.losses.csr_reconstruction import CSRReconstructionLoss as CSRReconstructionLoss
from losskit_plugins.losses.denoising_auto_encoder import DenoisingAutoEncoderLoss as DenoisingAutoEncoderLoss
from losskit_plugins.losses.distill_kl_div import DistillKLDivLoss as DistillKLDivLoss
from losskit_plugins.losses.embed_distill import EmbedDistillLoss as EmbedDistillLoss
from losskit_plugins.losses.gist import GISTEmbedLoss as GISTEmbedLoss
from losskit_plugins.losses.global_orthogonal_regularization import (
    GlobalOrthogonalRegularizationLoss as GlobalOrthogonalRegularizationLoss,
)
from losskit_plugins.losses.improved_contrastive import ImprovedContrastiveLoss as ImprovedContrastiveLoss
from losskit_plugins.losses.lambda_loss import LambdaLoss as LambdaLoss
from losskit_plugins.losses.list_mle import ListMLELoss as ListMLELoss
from losskit_plugins.losses.list_net import ListNetLoss as ListNetLoss
from losskit_plugins.losses.margin_mse import MarginMSELoss as MarginMSELoss
from losskit_plugins.losses.mega_batch_margin import MegaBatchMarginLoss as MegaBatchMarginLoss
from losskit_plugins.losses.mse import MSELoss as MSELoss
from losskit_plugins.losses.multiple_negatives_ranking import (
    MultipleNegativesRankingLoss as MultipleNegativesRankingLoss,
)
from losskit_plugins.losses.multiple_negatives_symmetric_ranking import (
    MultipleNegativesSymmetricRankingLoss as MultipleNegativesSymmetricRankingLoss,
)
from losskit_plugins.losses.online_contrastive import OnlineContrastiveLoss as OnlineContrastiveLoss
from losskit_plugins.losses.p_list_mle import PListMLELoss as PListMLELoss
from losskit_plugins.losses.rank_net import RankNetLoss as RankNetLoss
from losskit_plugins.losses.score_mse import ScoreMSELoss as ScoreMSELoss
from losskit_plugins.losses.softmax import SoftmaxLoss as SoftmaxLoss
from losskit_plugins.losses.triplet import TripletLoss as TripletLoss
from losskit_plugins.wrappers.adaptive_layer import AdaptiveLayerLoss as AdaptiveLayerLoss
from losskit_plugins.wrappers.csr import CSRLoss as CSRLoss
from losskit_plugins.wrappers.matryoshka import MatryoshkaLoss as MatryoshkaLoss
from losskit_plugins.wrappers.matryoshka_2d import Matryoshka2dLoss as Matryoshka2dLoss
from losskit_plugins.wrappers.splade import SpladeLoss as SpladeLoss
from losskit_plugins.wrappers.weighted_sum import WeightedSumLoss as WeightedSumLoss

def __getattr__(name: str) -> type: ...
