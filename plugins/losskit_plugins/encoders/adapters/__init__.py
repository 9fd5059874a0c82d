"""Views of sentence-transformers objects as encoders; that library is never imported to recognise them."""

from .cross_encoder import CrossEncoderView
from .dense import SentenceTransformerView
from .multi_vector import MultiVectorEncoderView
from .sparse import SparseEncoderView

__all__ = ["CrossEncoderView", "MultiVectorEncoderView", "SentenceTransformerView", "SparseEncoderView"]
