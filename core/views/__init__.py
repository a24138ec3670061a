"""Views: where positives come from. Each is `view(x, generator) -> Tensor`, with parameters of its own per sample."""

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
from .noise import VectorNoise
from .pair import TwoViews, ViewFactory
from .protocol import View
from .shift import RandomShift
from .vector import StandardisedNoise

__all__ = [
    "ColorJitter",
    "GaussianBlur",
    "ImageAugmentation",
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
