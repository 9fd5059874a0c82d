"""The incumbent's losses of encoders under its short import path; those of cross-encoders share names with others."""

from . import multi_vector_encoder, sentence_transformer, sparse_encoder
from .multi_vector_encoder.losses import *  # noqa: F403
from .sentence_transformer.losses import *  # noqa: F403
from .sparse_encoder.losses import *  # noqa: F403

__all__: list[str] = []
__all__ += sentence_transformer.losses.__all__
__all__ += sparse_encoder.losses.__all__
__all__ += multi_vector_encoder.losses.__all__
