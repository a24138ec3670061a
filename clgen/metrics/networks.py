"""Extractors that no data train: random weights, Inception, an encoder of ours. Shape legend: N images, C channels."""

import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.check import whole
from ...core.encoders import load_encoder
from ..images import as_float, as_uint8
from .extractor import Extracted, Reals, suited

INCEPTION_FEATURES = "2048"  # the pool features that FID and KID are defined on


class RandomCNN(nn.Module):
    """`(N, C, H, W) -> (N, 4 width)`: three convolutions with random weights, the mean over all pixels.

    A second opinion that nothing was trained for: it knows no classes, but sees low-level statistics (edges, contrast,
    texture) that a classifier is trained to ignore. Weights are He et al.'s (2015, arXiv:1502.01852), strides 1, 2, 2.

    Args:
        channels: of the images.
        width: channels of the first convolution.
        seed: of the weights.
        name: of the extractor.

    Raises:
        ValueError: a number out of range.
    """

    classes: tuple[str, ...] = ()
    rescaled = True

    def __init__(self, channels: int, width: int = 16, seed: int = 0, name: str = "random_cnn") -> None:
        super().__init__()
        self.name = name
        random = torch.Generator().manual_seed(whole("seed", seed))
        layers: list[nn.Module] = []
        below = whole("channels", channels, 1)
        for wide, stride in ((whole("width", width, 1), 1), (2 * width, 2), (4 * width, 2)):
            convolution = nn.Conv2d(below, wide, 3, stride, padding=1, bias=False)
            weights = torch.randn(convolution.weight.shape, generator=random) * math.sqrt(2 / (9 * below))
            convolution.weight = nn.Parameter(weights, requires_grad=False)
            layers += [convolution, nn.ReLU()]
            below = wide
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Extracted:
        """Return the features of images, uint8 or floats in [-1, 1]."""
        return Extracted(self.layers(as_float(images)))


class Inception(nn.Module):
    """`(N, C, H, W) -> (N, 2048)`: the Inception network of the original FID, as torch-fidelity ports it.

    Only with it is the Fréchet distance the FID, and the kernel distance the KID, of papers; features are not rescaled.
    It resizes images to 299 x 299 as TensorFlow 1 did.

    Args:
        weights: torch-fidelity's file `weights-inception-2015-12-05-6726825d.pth`. Nothing is downloaded.
        name: of the extractor.

    Raises:
        ValueError: torch-fidelity is not installed, or the file is not there or holds something else.
    """

    classes: tuple[str, ...] = ()
    rescaled = False

    def __init__(self, weights: str | Path, name: str = "inception") -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ValueError("Inception needs torch-fidelity: pip install 'contraux[generative]'") from error
        self.name = name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on the age of a pickle, which is refused anyway
                torch.load(weights, weights_only=True, map_location="cpu")  # torch-fidelity would run any pickle
            self.network = FeatureExtractorInceptionV3(
                name, [INCEPTION_FEATURES], feature_extractor_weights_path=str(weights)
            )
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            unsafe = isinstance(error, pickle.UnpicklingError)  # torch then recommends to load it all the same
            reason = "it holds more than arrays, and nothing of it was run" if unsafe else " ".join(str(error).split())
            raise ValueError(
                f"weights must be torch-fidelity's file of the Inception network, and {str(weights)!r} is not: "
                f"{reason[:200]}"
            ) from error

    def forward(self, images: Tensor) -> Extracted:
        """Return the features of images of 1 or 3 channels, uint8 or floats in [-1, 1], which are rounded to bytes."""
        rounded = as_uint8(images)
        if rounded.shape[1] == 1:
            rounded = rounded.expand(-1, 3, -1, -1)
        return Extracted(self.network(rounded)[0])


class Pretrained(nn.Module):
    """The features of an encoder of `contraux pretrain`; images are resized to what it reads.

    Args:
        checkpoint: a run folder, an encoder's folder, or a name on the Hugging Face Hub.
        name: of the extractor.

    Raises:
        ValueError: there is none, or it reads no images.
    """

    classes: tuple[str, ...] = ()
    rescaled = True

    def __init__(self, checkpoint: str | Path, name: str = "encoder") -> None:
        super().__init__()
        self.name, self.encoder = name, load_encoder(checkpoint).requires_grad_(False)
        if not self.encoder.is_image:
            raise ValueError(f"an extractor must read images, and {checkpoint} reads {self.encoder.input_shape}")

    def forward(self, images: Tensor) -> Extracted:
        """Return the features of images, uint8 or floats in [-1, 1]."""
        wanted: Any = self.encoder.input_shape
        return Extracted(self.encoder((suited(images, wanted, self.name) + 1) / 2))


def random_cnn(reals: Reals, *, width: int = 16, seed: int = 0, name: str = "random_cnn") -> RandomCNN:
    """Return a :class:`RandomCNN` for the channels of these data."""
    return RandomCNN(reals.train.tensor.shape[1], width, seed, name)


def inception(reals: Reals, *, weights: str | Path, name: str = "inception") -> Inception:
    """Return :class:`Inception`; the data play no part."""
    return Inception(weights, name)


def pretrained(reals: Reals, *, checkpoint: str | Path, name: str = "encoder") -> Pretrained:
    """Return an encoder as :class:`Pretrained`; the data play no part."""
    return Pretrained(checkpoint, name)
