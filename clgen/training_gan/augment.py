"""Differentiable augmentation of what the discriminator sees, real or generated.

Shape legend: B images, C channels, H x W size, U numbers an image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.check import choice, number


class Augment(nn.Module):
    """Changes images by uniform numbers that it is given, so that a run can draw them as a function of seed and step.

    Attributes:
        numbers: U.
    """

    numbers: int = 0

    def forward(self, images: Tensor, u: Tensor) -> Tensor:
        """Return augmented images, differentiable with respect to `images`; this one returns them as they are.

        Args:
            images: `(B, C, H, W)` in [-1, 1].
            u: `(B, U)` uniform in [0, 1).
        """
        return images

    def observe(self, real: Tensor, step: int) -> None:
        """Look at the discriminator's scores `(B,)` of real images, for an augmentation that adapts to them."""


class DiffAug(Augment):
    """Zhao et al. 2020, section 3.3, https://arxiv.org/abs/2006.10738.

        color: brightness + U(-.5, .5), saturation x U(0, 2), contrast x U(.5, 1.5)
        translation: by up to an eighth of the size, zeros outside
        cutout: zeros in a square of half the size, its centre anywhere

    Args:
        policy: of color, translation, cutout; applied in this order.

    Raises:
        ValueError: no policy, or an unknown one.
    """

    def __init__(self, policy: Sequence[str] = ("color", "translation", "cutout")) -> None:
        super().__init__()
        known = {"color": 3, "translation": 2, "cutout": 2}
        if isinstance(policy, str) or not policy:
            raise ValueError(f"policy must be a list of {', '.join(known)}, got {policy!r}")
        self.policy = tuple(choice("policy", name, known) for name in policy)
        self.numbers = sum(known[name] for name in self.policy)

    def forward(self, images: Tensor, u: Tensor) -> Tensor:
        """Return `(B, C, H, W)`, by the policy's numbers `(B, U)` in its order."""
        column = 0
        for name in self.policy:
            if name == "color":
                images = color(images, u[:, column : column + 3])
                column += 3
            else:
                images = (translation if name == "translation" else cutout)(images, u[:, column : column + 2])
                column += 2
        return images


def color(images: Tensor, u: Tensor) -> Tensor:
    """Return images of other brightness, saturation and contrast, by `(B, 3)` uniform numbers."""
    brightness, saturation, contrast = (u[:, i].to(images).view(-1, 1, 1, 1) for i in range(3))
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + 0.5) + mean


def translation(images: Tensor, u: Tensor, share: float = 0.125) -> Tensor:
    """Return images moved by whole pixels, up to `share` of their size each way, zeros outside; `u` is `(B, 2)`."""
    height, width = images.shape[2:]
    rows, columns = (_moved(side, share, u[:, i], images.device) for i, side in enumerate((height, width)))
    framed = nn.functional.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    batch = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    return framed[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _moved(side: int, share: float, u: Tensor, device: torch.device) -> Tensor:
    """Return where each pixel of a side comes from, `(B, side)`, in an image framed by one pixel."""
    reach = int(side * share + 0.5)
    shift = (u.to(device) * (2 * reach + 1)).floor().long() - reach
    return (torch.arange(1, side + 1, device=device) + shift[:, None]).clamp(0, side + 1)


def cutout(images: Tensor, u: Tensor, share: float = 0.5) -> Tensor:
    """Return images with a square of zeros, `share` of the size wide and cut off at the border; `u` is `(B, 2)`."""
    inside = []
    for i, side in enumerate(images.shape[2:]):
        length = int(side * share + 0.5)
        centre = (u[:, i].to(images.device) * (side + 1 - length % 2)).floor().long()
        first = centre[:, None] - length // 2
        at = torch.arange(side, device=images.device)
        inside.append((at >= first) & (at < first + length))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return images.masked_fill(hole[:, None], 0.0)


class AffineContrast(Augment):
    """Small rotations, zooms, shears of size and shifts, and other brightness and contrast; always all of them.

    The views of contrastive learning (SimCLR) where they must be differentiable and cheap: by default without flips,
    since a mirrored digit is another one. One affine map of bilinear interpolation, borders reflected.

    Args:
        rotate: degrees each way, >= 0.
        zoom: in [0, 1): the size is divided by U(1 - zoom, 1 + zoom).
        aspect: in [0, 1): each side also by U(1 - aspect, 1 + aspect).
        shift: share of the size each way, >= 0.
        flip: probability of a mirrored image, in [0, 1].
        brightness: added U(-brightness, brightness), >= 0.
        contrast: in [0, 1): multiplied around the image's mean by U(1 - contrast, 1 + contrast).
        saturation: likewise around the mean of channels; colours only.

    Raises:
        ValueError: a number out of range.
    """

    numbers = 9

    def __init__(
        self, *, rotate: float = 10.0, zoom: float = 0.15, aspect: float = 0.1, shift: float = 0.1, flip: float = 0.0,
        brightness: float = 0.2, contrast: float = 0.3, saturation: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.rotate, self.shift = number("rotate", rotate, 0.0), number("shift", shift, 0.0)
        self.brightness, self.flip = number("brightness", brightness, 0.0), number("flip", flip, 0.0, 1.0)
        self.zoom, self.aspect = (
            number(name, value, 0.0, 1.0, below=True) for name, value in (("zoom", zoom), ("aspect", aspect))
        )
        self.contrast, self.saturation = (
            number(name, value, 0.0, 1.0, below=True)
            for name, value in (("contrast", contrast), ("saturation", saturation))
        )

    def forward(self, images: Tensor, u: Tensor) -> Tensor:
        """Return `(B, C, H, W)`, by nine numbers an image."""
        u = u.to(images)
        signed = 2 * u - 1
        angle = torch.deg2rad(self.rotate * signed[:, 0])
        zoom = 1 + self.zoom * signed[:, 1]
        across, down = (zoom * (1 + self.aspect * signed[:, i]) for i in (2, 3))
        mirror = 1 - 2 * (u[:, 4] < self.flip).to(images)
        moves = 2 * self.shift * signed[:, 5:7]
        images = affine(images, angle, across * mirror, down, moves)
        images = images + self.brightness * signed[:, 7].view(-1, 1, 1, 1)
        around = images.mean((1, 2, 3), keepdim=True)
        images = (images - around) * (1 + self.contrast * signed[:, 8].view(-1, 1, 1, 1)) + around
        if self.saturation and images.shape[1] > 1:
            grey = images.mean(1, keepdim=True)
            images = (images - grey) * (1 + self.saturation * signed[:, 3].view(-1, 1, 1, 1)) + grey
        return images


def affine(images: Tensor, angle: Tensor, across: Tensor, down: Tensor, moves: Tensor) -> Tensor:
    """Return images rotated, scaled and moved, by one bilinear interpolation; borders are reflected.

        source = R(angle) diag(across, down) target + moves

    Args:
        images: `(B, C, H, W)`.
        angle: `(B,)`, radians.
        across: `(B,)`, of the horizontal axis; > 1 makes things smaller, < 0 mirrors them.
        down: likewise of the vertical axis.
        moves: `(B, 2)`, horizontal and vertical, where 2 is the whole image.
    """
    cos, sin = angle.cos(), angle.sin()
    rows = (
        torch.stack((cos * across, -sin * down, moves[:, 0]), 1),
        torch.stack((sin * across, cos * down, moves[:, 1]), 1),
    )
    theta = torch.stack(rows, 1).to(images.dtype)
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
