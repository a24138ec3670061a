"""From images to features, by a network that stays as it is. Shape legend: N images, D features, K classes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ...core.check import shape, whole
from ...core.evaluation.features import device_of, evaluating
from ..images import Images, as_float, resized


class Extracted(NamedTuple):
    """What a network makes of images.

    Attributes:
        features: `(N, D)`.
        logits: `(N, K)`; None where it is no classifier.
    """

    features: Tensor
    logits: Tensor | None = None


class Extractor(Protocol):
    """What distances need: an `nn.Module` that turns images into features, and whose weights stay as they are.

    Attributes:
        name: for the names of metrics, such as `digits_cnn` in `frechet/digits_cnn`.
        classes: names of its logits, in order; empty where it is no classifier of the data.
        rescaled: whether features are centred at the real ones' mean and multiplied with the scalar of
            :func:`scale_of`. Not so for Inception, whose numbers are compared with those of papers.
    """

    name: str
    classes: tuple[str, ...]
    rescaled: bool

    def __call__(self, images: Tensor) -> Extracted:
        """Return the features of images `(N, C, H, W)`, uint8 or floats in [-1, 1]."""
        ...


class Reals(NamedTuple):
    """What an extractor may be made with.

    Attributes:
        train: images it may be trained on.
        test: images of the same data that it must not be trained on; None: there are none.
        name: of the data, such as `digits`.
    """

    train: Images
    test: Images | None
    name: str


class ExtractorFactory(Protocol):
    """What a YAML of `configs/extractors/` describes."""

    def __call__(self, reals: Reals) -> Extractor:
        """Return an extractor for these data."""
        ...


class NoLabels(ValueError):
    """The data have no labels, which this extractor is trained with."""


def made(factories: Sequence[ExtractorFactory], reals: Reals) -> tuple[list[Extractor], list[str]]:
    """Return the extractors for some data, and a note on each that goes without because the data have no labels.

    Raises:
        ValueError: none is left, or what a factory finds wrong.
    """
    extractors, notes = [], []
    for factory in factories:
        try:
            extractors.append(factory(reals))
        except NoLabels as error:
            notes.append(str(error))
    if not extractors:
        raise ValueError("; ".join(["metrics need at least one extractor, got none", *notes]))
    names = [extractor.name for extractor in extractors]
    if len(set(names)) < len(names):
        raise ValueError(f"extractors must have different names, got {', '.join(names)}")
    return extractors, notes


class Seen(NamedTuple):
    """Images as an extractor sees them.

    Attributes:
        features: `(N, D)` float64.
        predicted: `(N,)` classes; None where the extractor is no classifier.
    """

    features: np.ndarray
    predicted: np.ndarray | None

    def rows(self, chosen: np.ndarray) -> "Seen":
        """Return some of the images."""
        return Seen(self.features[chosen], None if self.predicted is None else self.predicted[chosen])


def seen(extractor: Extractor, images: Tensor, batch_size: int = 256, device: torch.device | str | None = None) -> Seen:
    """Return the features of all images, in eval mode and without gradients; they are not rescaled yet.

    Args:
        extractor: it stays on `device`.
        images: `(N, C, H, W)`.
        batch_size: images a pass, >= 1.
        device: where it runs; None: where it is.

    Raises:
        ValueError: images of another shape, a number out of range, or features that are not `(N, D)`.
    """
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must be (N, C, H, W), N >= 1, got {shape(images)}")
    module = extractor if isinstance(extractor, nn.Module) else nn.Identity()
    device = device_of(module) if device is None else device
    module.to(device)
    features, predicted = [], []
    with evaluating(module), torch.no_grad():
        for part in images.split(whole("batch_size", batch_size, 1)):
            found = extractor(part.to(device))
            if found.features.ndim != 2 or len(found.features) != len(part):
                raise ValueError(f"{extractor.name} must return features (N, D), got {shape(found.features)}")
            features.append(found.features.double().cpu())
            if found.logits is not None:
                predicted.append(found.logits.argmax(1).cpu())
    return Seen(torch.cat(features).numpy(), torch.cat(predicted).numpy() if predicted else None)


def scale_of(real: np.ndarray) -> float:
    """Return the one scalar with which the mean variance of the real features `(N, D)` over their dimensions is 1.

        s = (Σ_d var(f_d) / D)^-½

    So distances of different extractors have one order of magnitude, and the kernel distance, whose kernel knows a
    scale, does not drown in noise. Ratios between distances, and all ranks of neighbours, stay as they were.

    Raises:
        ValueError: the features are constant, or there is only one row.
    """
    variance = float(real.var(0, ddof=1).mean()) if len(real) > 1 else 0.0
    if not variance > 0:
        raise ValueError(f"features of real images must vary, got a mean variance of {variance} over {len(real)} rows")
    return variance**-0.5


def suited(images: Tensor, wanted: tuple[int, int, int], name: str) -> Tensor:
    """Return images as floats in [-1, 1] of the channels and size that a network reads; grey ones are repeated as RGB.

    Raises:
        ValueError: channels that do not fit, or a network that reads no squares.
    """
    channels, height, width = wanted
    if height != width:
        raise ValueError(f"an extractor must read square images, and {name} reads {height} x {width}")
    images = as_float(images)
    if images.shape[1] == 1 and channels == 3:
        images = images.expand(-1, 3, -1, -1)
    if images.shape[1] != channels:
        raise ValueError(f"{name} reads images of {channels} channels, got {shape(images)}")
    return resized(images, height)
