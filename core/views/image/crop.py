"""Random resized crop with a random flip. Shape legend: N images, C channels, H x W their size, T tries."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...check import number, whole
from .operation import between, interval
from .resample import Taps, resized, taps

TRIES = 10


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cut a box of random area, shape and place out of each image, resize it to one size, mirror some left to right.

    The area is uniform in `scale` times the image's, the logarithm of width / height uniform between those of `ratio`;
    a box that does not fit is drawn anew, up to 10 times, then it is the largest centred one whose ratio is allowed
    (Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, section 6, as torchvision's `RandomResizedCrop`). Resizing is
    bilinear with antialiasing, see `taps`.

    Args:
        size: side of the square output in pixels; None keeps the size of the images.
        scale: smallest and largest share of the area, in (0, 1].
        ratio: smallest and largest width / height, > 0.
        flip: probability of mirroring, in [0, 1].

    Raises:
        ValueError: an argument is outside of its range.
    """

    size: int | None = None
    scale: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        if self.size is not None:
            whole("size", self.size, 1)
        interval("scale", self.scale, 1.0)
        interval("ratio", self.ratio, math.inf)
        number("flip", self.flip, 0.0, 1.0)

    @property
    def draws(self) -> int:
        """Return 23: area and ratio of each try, two coordinates, flip."""
        return 2 * TRIES + 3

    def parameters(self, u: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return pixels and weights of the rows, then of the columns, `(N, S, K)` each, see `taps`."""
        boxes = random_boxes(u, size, self.scale, self.ratio)
        height, width = size if self.size is None else (self.size, self.size)
        rows = taps(boxes.top, boxes.height, None, size[0], height)
        columns = taps(boxes.left, boxes.width, u[:, -1] < self.flip, size[1], width)
        return *rows, *columns

    def __call__(self, x: Tensor, *parameters: Tensor) -> Tensor:
        """Return `(N, C, size, size)`."""
        row_pixel, row_weight, column_pixel, column_weight = parameters
        return resized(x, Taps(row_pixel, row_weight), Taps(column_pixel, column_weight))


class Boxes(NamedTuple):
    """A box in each image, `(N,)` float each: whole numbers of pixels."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def random_boxes(u: Tensor, size: tuple[int, int], scale: Sequence[float], ratio: Sequence[float]) -> Boxes:
    """Return the boxes that the uniform numbers `u` `(N, >= 22)` choose in images of `size` (rows, columns)."""
    h, w = size
    area_NT = between(u[:, :TRIES], scale[0], scale[1]) * (h * w)
    ratio_NT = between(u[:, TRIES : 2 * TRIES], math.log(ratio[0]), math.log(ratio[1])).exp()
    width_NT = (area_NT * ratio_NT).sqrt().round()
    height_NT = (area_NT / ratio_NT).sqrt().round()
    fits_NT = (width_NT >= 1) & (width_NT <= w) & (height_NT >= 1) & (height_NT <= h)
    earlier_T = torch.arange(TRIES, 0, -1, device=u.device)
    found_N1, first_N1 = (fits_NT * earlier_T).max(1, keepdim=True)
    centred_height, centred_width = _centred(h, w, ratio)
    width_N = torch.where(found_N1 > 0, width_NT.gather(1, first_N1), centred_width).squeeze(1)
    height_N = torch.where(found_N1 > 0, height_NT.gather(1, first_N1), centred_height).squeeze(1)
    free_N2 = torch.stack((h - height_N, w - width_N), 1)
    drawn_N2 = (u[:, 2 * TRIES : 2 * TRIES + 2] * (free_N2 + 1)).floor()
    top_N, left_N = torch.where(found_N1 > 0, drawn_N2, (free_N2 / 2).floor()).unbind(1)
    return Boxes(top_N, left_N, height_N, width_N)


def _centred(h: int, w: int, ratio: Sequence[float]) -> tuple[float, float]:
    """Return height and width of the largest box of an allowed ratio."""
    if w / h < ratio[0]:
        return float(round(w / ratio[0])), float(w)
    if w / h > ratio[1]:
        return float(h), float(round(h * ratio[1]))
    return float(h), float(w)
