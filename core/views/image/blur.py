"""Random Gaussian blur. Shape legend: N images, C channels, H x W their size, K width of the kernel."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...check import number, whole
from .operation import between, interval, on_chosen
from .resample import Taps, resized


@dataclass(frozen=True)
class GaussianBlur:
    """Blur some images with a Gaussian whose standard deviation is uniform in `sigma`, borders reflected.

    Chen et al. 2020 (SimCLR, https://arxiv.org/abs/2002.05709), appendix A: probability 0.5, sigma in [0.1, 2] pixels,
    a kernel as wide as a tenth of the image. The kernel's values are those of torchvision's `GaussianBlur`.

    Args:
        p: probability, in [0, 1].
        sigma: smallest and largest standard deviation in pixels, > 0.
        kernel: width in pixels, an odd number >= 1; None takes the tenth of the image's shorter side, rounded to an
            odd number (23 of 224, 9 of 96, 3 of 32).

    Raises:
        ValueError: an argument is outside of its range; called on images no larger than half of the kernel.
    """

    p: float = 0.5
    sigma: Sequence[float] = (0.1, 2.0)
    kernel: int | None = None

    def __post_init__(self) -> None:
        number("p", self.p, 0.0, 1.0)
        interval("sigma", self.sigma, 1e6)
        if self.kernel is not None and whole("kernel", self.kernel, 1) % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")

    @property
    def draws(self) -> int:
        """Return 2: whether, and sigma."""
        return 2

    def parameters(self, u: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return whether, and sigma, `(N,)` each."""
        return u[:, 0] < self.p, between(u[:, 1], self.sigma[0], self.sigma[1])

    def __call__(self, x: Tensor, *parameters: Tensor) -> Tensor:
        """Return `(N, C, H, W)`."""
        chosen_N, sigma_N = parameters
        side = min(x.shape[2:])
        width = side // 20 * 2 + 1 if self.kernel is None else self.kernel
        if width // 2 >= side:
            raise ValueError(f"GaussianBlur(kernel={width}) needs images larger than {width // 2} pixels, got {side}")
        return on_chosen(x, chosen_N, lambda part, sigma: blurred(part, sigma, width), sigma_N)


def blurred(x: Tensor, sigma_N: Tensor, width: int) -> Tensor:
    """Return each image convolved with its own Gaussian of `width` taps along rows and along columns."""
    weight_NK = gaussian(sigma_N, width)
    return resized(x, _reflected(weight_NK, x.shape[2]), _reflected(weight_NK, x.shape[3]))


def gaussian(sigma_N: Tensor, width: int) -> Tensor:
    """Return `(N, K)`: exp(-k^2 / (2 sigma^2)) of the distances k to the middle, scaled to sum to 1."""
    distance_K = torch.arange(width, device=sigma_N.device, dtype=sigma_N.dtype) - width // 2
    return torch.softmax(-((distance_K / sigma_N.unsqueeze(1)) ** 2) / 2, 1)


def _reflected(weight_NK: Tensor, pixels: int) -> Taps:
    """Return the taps around each pixel of a line; beyond its ends the line goes back, its last pixel not repeated."""
    n, width = weight_NK.shape
    line_P1 = torch.arange(pixels, device=weight_NK.device).unsqueeze(1)
    around_PK = (line_P1 + torch.arange(width, device=weight_NK.device) - width // 2).abs()
    pixel_PK = pixels - 1 - (pixels - 1 - around_PK).abs()
    return Taps(pixel_PK.expand(n, pixels, width), weight_NK.unsqueeze(1).expand(n, pixels, width))
