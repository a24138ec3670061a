"""Training GANs: players, adversarial losses, penalties, augmentation, one trainer, and the job `contraux gan`."""

from .ada import ADA
from .adversarial import Adversarial
from .augment import AffineContrast, Augment, DiffAug
from .dcgan import dcgan
from .losses import (
    hinge_discriminator,
    least_squares_discriminator,
    least_squares_generator,
    linear_generator,
    non_saturating_discriminator,
    non_saturating_generator,
    relativistic_discriminator,
    relativistic_generator,
    wasserstein_discriminator,
)
from .penalties import one_centred, zero_centred
from .players import Backbone, Discriminator, Generator
from .resnet import resnet
from .saving import load_discriminator, load_generator
from .sndcgan import sndcgan
from .trainer import Trained, Trainer

__all__ = [
    "ADA",
    "Adversarial",
    "AffineContrast",
    "Augment",
    "Backbone",
    "DiffAug",
    "Discriminator",
    "Generator",
    "Trained",
    "Trainer",
    "dcgan",
    "hinge_discriminator",
    "least_squares_discriminator",
    "least_squares_generator",
    "linear_generator",
    "load_discriminator",
    "load_generator",
    "non_saturating_discriminator",
    "non_saturating_generator",
    "one_centred",
    "relativistic_discriminator",
    "relativistic_generator",
    "resnet",
    "sndcgan",
    "wasserstein_discriminator",
    "zero_centred",
]
