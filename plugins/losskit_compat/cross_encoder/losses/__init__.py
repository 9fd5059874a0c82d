"""The incumbent's losses of cross-encoders: class names, constructors and attributes, over losskit's losses.

Modules have the incumbent's names too: `losskit_compat.cross_encoder.losses.lambda_loss` and so on.
"""

from .list_net import ListNetLoss
from .margin_mse import MarginMSELoss

__all__ = [
    "ListNetLoss",
    "MarginMSELoss",
]
