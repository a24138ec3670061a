"""What a classifier says of generated images. Shape legend: N images, K classes, D features."""

from collections.abc import Mapping

import numpy as np

from ...core.check import number, whole
from .gaussians import frechet_distance

LEAST = 32  # images of a class, below which its Fréchet distance is nothing but bias


def class_shares(classes: np.ndarray, count: int) -> np.ndarray:
    """Return `(K,)`: the share of each of `count` classes among `(N,)` predicted ones; they sum to 1.

    Raises:
        ValueError: no images, or a class outside [0, K).
    """
    found = np.asarray(classes)
    if found.ndim != 1 or len(found) == 0 or found.min() < 0 or found.max() >= count:
        raise ValueError(f"classes must be (N,), N >= 1, each in [0, {count}), got {found.shape} {found[:8]}")
    return np.bincount(found, minlength=count) / len(found)


def total_variation(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the total variation ½ Σ |pₖ - qₖ| of two distributions `(K,)`, in [0, 1]: the share in wrong classes."""
    return float(np.abs(np.asarray(real) - np.asarray(fake)).sum() / 2)


def missing_classes(real: np.ndarray, fake: np.ndarray, below: float = 0.1) -> int:
    """Return how many classes are as good as absent: their share is less than `below` of their real share.

    A classifier takes some broken images for any class, so a dropped class seldom has a share of exactly 0.

    Raises:
        ValueError: `below` is not in (0, 1].
    """
    below = number("below", below, 0, 1, above=True)
    return int((np.asarray(fake) < below * np.asarray(real)).sum())


def class_agreement(asked: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of conditional samples that a classifier takes for the class they were asked to be, in [0, 1].

    Args:
        asked: `(N,)` classes; samples with one < 0 were asked to be nothing, and do not count.
        predicted: `(N,)` classes.

    Raises:
        ValueError: shapes that differ, or nothing that counts.
    """
    asked, predicted = np.asarray(asked), np.asarray(predicted)
    known = asked >= 0
    if asked.shape != predicted.shape or not known.any():
        raise ValueError(f"asked and predicted must be classes (N,), some known, got {asked.shape}, {predicted.shape}")
    return float((asked == predicted)[known].mean())


def intra_class_frechet(
    real: np.ndarray, real_labels: np.ndarray, fake: np.ndarray, fake_labels: np.ndarray, least: int = LEAST
) -> Mapping[int, float]:
    """Return the Fréchet distance within each class: real images of a class to samples asked to be of it.

    Their mean is the intra-class distance (intra-FID on Inception's features, Miyato and Koyama 2018,
    arXiv:1802.05637). It sees what the distance over all classes forgives: samples of the wrong class, and a class that
    is always the same picture.

    Args:
        real: `(N, D)` features.
        real_labels: `(N,)` classes, < 0 where unknown.
        fake: `(M, D)`.
        fake_labels: `(M,)` classes asked for.
        least: images of a class that both sets must have, >= 2; classes with fewer are left out.

    Returns:
        The distance by class; empty where no class has enough.

    Raises:
        ValueError: a number out of range, or see :func:`frechet_distance`.
    """
    least = whole("least", least, 2)
    real_labels, fake_labels = np.asarray(real_labels), np.asarray(fake_labels)
    found = {}
    for label in np.unique(real_labels[real_labels >= 0]).tolist():
        one, other = real[real_labels == label], fake[fake_labels == label]
        if min(len(one), len(other)) >= least:
            found[label] = frechet_distance(one, other)
    return found
