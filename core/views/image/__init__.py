"""Augmentations of image batches on their device, with parameters of its own for every image."""

from .augmentation import ImageAugmentation
from .blur import GaussianBlur
from .crop import RandomResizedCrop
from .gray import RandomGrayscale
from .jitter import ColorJitter
from .operation import Operation
from .shift import PixelShift
from .solarize import RandomSolarize

__all__ = [
    "ColorJitter",
    "GaussianBlur",
    "ImageAugmentation",
    "Operation",
    "PixelShift",
    "RandomGrayscale",
    "RandomResizedCrop",
    "RandomSolarize",
]
