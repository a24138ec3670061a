"""The two players, whatever they are made of. Shape legend: B images, Z latent dimension, C channels, H x W size."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ...core.check import shape, whole


class Generator(nn.Module):
    """Makes images of latents: a linear layer to 4 x 4, blocks that double the size, and a last layer with tanh.

    Args:
        latent: Z.
        channels: that the linear layer makes.
        blocks: modules `(x, labels) -> x`.
        last: module `x -> image`, without the tanh.
        image: shape `(C, H, W)` of an image.
        classes: of labels it must be given; 0: none.

    Attributes:
        latent: Z.
        image: `(C, H, W)`.
        classes: 0 where it is unconditional.
    """

    def __init__(
        self, latent: int, channels: int, blocks: Iterable[nn.Module], last: nn.Module, image: tuple[int, ...],
        classes: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.latent, self.image, self.classes = whole("latent", latent, 1), image, whole("classes", classes)
        self.stem = nn.Linear(latent, channels * 16)
        self.blocks, self.last = nn.ModuleList(blocks), last

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images `(B, C, H, W)` in [-1, 1].

        Args:
            latents: `(B, Z)`, standard normal.
            labels: `(B,)` long in [0, classes), for a conditional one.

        Raises:
            ValueError: latents of another shape, or labels that are missing or not wanted.
        """
        if latents.ndim != 2 or latents.shape[1] != self.latent:
            raise ValueError(f"latents must be (B, {self.latent}), got {shape(latents)}")
        _check_labels(self.classes, labels)
        x = self.stem(latents).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            x = block(x, labels)
        return torch.tanh(self.last(x))


class Discriminator(nn.Module):
    """Scores images: a trunk `body`, whose map `(B, C, h, w)` an auxiliary can be attached to, and a `head`.

        aux = attach(discriminator, at="body", objective="contrad", example=images)

    Args:
        body: a sequence of stages, image -> map; methods that look at local features take the last but one.
        head: `(map, labels) -> scores`.

    Attributes:
        taps: where methods look by default: name of their tap -> dotted name of a module.
    """

    def __init__(self, body: nn.Sequential, head: "Head") -> None:
        super().__init__()
        self.body, self.head = body, head
        self.classes = head.classes
        last = max(len(body) - 2, 0)
        self.taps: Mapping[str, str] = {"features": "body", "global": "body", "local": f"body.{last}"}

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return scores `(B,)`, larger for what looks real.

        Args:
            images: `(B, C, H, W)` in [-1, 1].
            labels: `(B,)` long, for a conditional one.

        Raises:
            ValueError: labels that are missing or not wanted.
        """
        _check_labels(self.classes, labels)
        scores: Tensor = self.head(self.body(images), labels)
        return scores


class Head(nn.Module):
    """A linear score, and for classes the projection (Miyato and Koyama 2018, eq. 4; https://arxiv.org/abs/1802.05637).

        score = w . h + b + v_label . h,    h the map, summed over its positions or flattened

    Args:
        features: length of h.
        classes: 0 for none.
        pool: whether to sum over the map; otherwise it is flattened.
        hidden: width of a hidden layer before the score (ContraD's head); 0: none.
    """

    def __init__(self, features: int, classes: int, *, pool: bool = False, hidden: int = 0) -> None:
        super().__init__()
        self.classes, self.pool = whole("classes", classes), pool
        self.hidden: nn.Module = nn.Identity()
        if whole("hidden", hidden):
            self.hidden = nn.Sequential(nn.Linear(features, hidden), nn.LeakyReLU(0.1))
            features = hidden
        self.score = nn.Linear(features, 1)
        self.classifier = nn.Embedding(classes, features) if classes else None
        if self.classifier is not None:
            nn.init.normal_(self.classifier.weight, std=0.02)  # torch's 1 would drown the score where nothing norms it

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return `(B,)` scores of maps `(B, C, h, w)`."""
        h = self.hidden(x.sum((2, 3)) if self.pool else x.flatten(1))
        score = self.score(h).squeeze(1)
        return score if self.classifier is None else score + (self.classifier(labels) * h).sum(1)


class Backbone(NamedTuple):
    """A generator and a discriminator for the same images."""

    generator: nn.Module
    discriminator: nn.Module


class BackboneFactory(Protocol):
    """What a YAML of `configs/gan/backbone/` describes."""

    def __call__(self, *, size: int, channels: int, classes: int) -> Backbone:
        """Return both players for images `(channels, size, size)`; 0 classes for unconditional ones."""
        ...


def _check_labels(classes: int, labels: Tensor | None) -> None:
    if (labels is None) == bool(classes):
        rule = f"must be given, of {classes} classes" if classes else "must be left out of what has no classes"
        raise ValueError(f"labels {rule}, got {None if labels is None else shape(labels)}")
