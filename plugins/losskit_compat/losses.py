"""The incumbent's losses under its short import path."""

from .sentence_transformer.losses import *  # noqa: F403
from .sentence_transformer.losses import __all__ as __all__
