"""What generated images are worth: distances, precision and recall, with extractors that need no network.

from contraux.clgen.metrics import Reals, classifier, evaluate_images, random_cnn

reals = Reals(images_of(digits("train"), 16), images_of(digits("test"), 16), "digits")
found = evaluate_images(reals.train, fakes, [classifier(reals), random_cnn(reals)], held_out=reals.test)
"""

from .classes import class_agreement, class_shares, intra_class_frechet, missing_classes, total_variation
from .classifier import Classifier, classifier
from .extractor import Extracted, Extractor, ExtractorFactory, NoLabels, Reals, Seen, made, scale_of, seen
from .gaussians import Gaussian, frechet, frechet_distance, gaussian, gaussian_of
from .kernel import KernelDistance, kernel_distance, squared_mmd
from .neighbourhoods import Manifold, manifold
from .networks import Inception, Pretrained, RandomCNN, inception, pretrained, random_cnn
from .suite import Settings, evaluate_images

__all__ = [
    "Classifier",
    "Extracted",
    "Extractor",
    "ExtractorFactory",
    "Gaussian",
    "Inception",
    "KernelDistance",
    "Manifold",
    "NoLabels",
    "Pretrained",
    "RandomCNN",
    "Reals",
    "Seen",
    "Settings",
    "class_agreement",
    "class_shares",
    "classifier",
    "evaluate_images",
    "frechet",
    "frechet_distance",
    "gaussian",
    "gaussian_of",
    "inception",
    "intra_class_frechet",
    "kernel_distance",
    "made",
    "manifold",
    "missing_classes",
    "pretrained",
    "random_cnn",
    "scale_of",
    "seen",
    "squared_mmd",
    "total_variation",
]
