"""Views: where positives come from. Each is `view(x, generator) -> Tensor`, with parameters of its own per sample."""

from .chain import Chain
from .crop import RandomCrop
from .image import (
    ColorJitter,
    GaussianBlur,
    ImageAugmentation,
    PixelShift,
    RandomGrayscale,
    RandomResizedCrop,
    RandomSolarize,
)
from .intensity import Intensity
from .noise import VectorNoise
from .pair import TwoViews, ViewFactory
from .protocol import View
from .shift import RandomShift
from .vector import StandardisedNoise

__all__ = [
    "Chain",
    "ColorJitter",
    "GaussianBlur",
    "ImageAugmentation",
    "Intensity",
    "PixelShift",
    "RandomCrop",
    "RandomGrayscale",
    "RandomResizedCrop",
    "RandomShift",
    "RandomSolarize",
    "StandardisedNoise",
    "TwoViews",
    "VectorNoise",
    "View",
    "ViewFactory",
]
