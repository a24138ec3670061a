"""The random shift of DrQ. Shape legend: N images, C channels, H x W their size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..check import whole
from .window import check_images, windows


@dataclass(frozen=True)
class RandomShift:
    """Shift each image by whole pixels, up to `pad` in each direction; border pixels repeat (Kostrikov et al. 2020).

    Padding by replication and cropping back at random, section 3.1 of DrQ (https://arxiv.org/abs/2004.13649): each of
    the (2 pad + 1)^2 shifts is equally likely, and all channels of an image (stacked frames) move together. Values are
    never interpolated, so uint8 stays uint8.

    Args:
        pad: largest shift in pixels, >= 1.

    Raises:
        ValueError: pad is not a whole number >= 1; called on something that is not `(N, C, H, W)`.
    """

    pad: int = 4

    def __post_init__(self) -> None:
        whole("pad", self.pad, 1)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return `(N, C, H, W)` shifted images."""
        check_images(x, "RandomShift")
        drawn_N2 = torch.randint(2 * self.pad + 1, (len(x), 2), generator=generator, device=generator.device)
        return shifted(x, drawn_N2.to(x.device), self.pad)


def shifted(x_NCHW: Tensor, drawn_N2: Tensor, pad: int) -> Tensor:
    """Return each image shifted up and left by `drawn - pad` pixels, drawn in [0, 2 pad]; border pixels repeat."""
    n, c, h, w = x_NCHW.shape
    rows = drawn_N2[:, :1] - pad + torch.arange(h, device=x_NCHW.device)
    wide = x_NCHW.new_empty(n, c, h, w + 2 * pad)  # only columns are padded: a row outside is a border row again
    wide[..., pad:-pad] = x_NCHW
    wide[..., :pad] = x_NCHW[..., :1]
    wide[..., -pad:] = x_NCHW[..., -1:]
    return windows(wide, rows.clamp_(0, h - 1), drawn_N2[:, 1], w)
