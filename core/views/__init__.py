"""Views: where positives come from. Each is `view(x, generator) -> Tensor`, with parameters of its own per sample."""

from .crop import RandomCrop
from .noise import VectorNoise
from .protocol import View
from .shift import RandomShift

__all__ = ["RandomCrop", "RandomShift", "VectorNoise", "View"]
