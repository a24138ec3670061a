"""What generated images are worth: distances, precision and recall, with extractors that need no network."""

from .classes import class_agreement, class_shares, intra_class_frechet, missing_classes, total_variation
from .gaussians import Gaussian, frechet, frechet_distance, gaussian, gaussian_of
from .kernel import KernelDistance, kernel_distance, squared_mmd
from .neighbourhoods import Manifold, manifold

__all__ = [
    "Gaussian",
    "KernelDistance",
    "Manifold",
    "class_agreement",
    "class_shares",
    "frechet",
    "frechet_distance",
    "gaussian",
    "gaussian_of",
    "intra_class_frechet",
    "kernel_distance",
    "manifold",
    "missing_classes",
    "squared_mmd",
    "total_variation",
]
