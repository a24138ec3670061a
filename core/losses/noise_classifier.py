"""A denoiser as a classifier of noise: log-densities from its errors. Shape legend: P noise levels, B rows."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..check import number, shape, whole


def log_density_ratio(clean_error: Tensor, noised_error: Tensor, weight: Tensor) -> Tensor:
    """Return `(B,)` log p_s(z) - log p(z) in nats, from pointwise errors of two denoisers at the same noise.

        log p_s(z) - log p(z) = 1/2 int_0^inf ( E|z - D(w)|^2 - E|z - D_s(w)|^2 ) dg,    w = z + noise / sqrt(g)

    the difference of two log-densities by Kong et al. 2023, https://arxiv.org/abs/2302.03792, whose other terms cancel.
    D is the denoiser of the data, D_s that of the data with noise of deviation s already on it.

    Args:
        clean_error: `(P, B)` |z - D(w)|^2, summed over entries.
        noised_error: `(P, B)` |z - D_s(w)|^2 of the same w.
        weight: `(P, B)` what each stands for in the integral over g, see `snr_points`.

    Raises:
        ValueError: shapes that disagree.
    """
    if clean_error.ndim != 2 or not clean_error.shape == noised_error.shape == weight.shape:
        raise ValueError(
            f"errors and weights must be of one shape (P, B), got {shape(clean_error)}, {shape(noised_error)} and "
            f"{shape(weight)}"
        )
    return ((clean_error - noised_error) * weight).sum(0) / 2


def noise_classification(log_ratio: Tensor, noised: Tensor) -> Tensor:
    """Return the contrastive diffusion loss (Wu et al. 2024, https://arxiv.org/abs/2407.08946).

        L = mean softplus( y log p_s(z)/p(z) ),    y = 1 for clean z and -1 for noised ones,    in [0, inf)

    the logistic loss of telling them apart by the densities; log 2 is a guess.

    Args:
        log_ratio: `(B,)` log p_s(z) - log p(z).
        noised: `(B,)` bool, whether z is noised.
    """
    return F.softplus(log_ratio.where(~noised, -log_ratio)).mean()


def snr_points(
    points: int,
    rows: int,
    location: float = 0.0,
    scale: float = 2.0,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Return `(P, B)` signal-to-noise ratios g drawn from a logistic law of log g, and their weights in int dg.

    One from each of P parts of equal probability for each row, so that P points cover the range. At a scale of 2 what
    is integrated divided by the law is bounded on both sides.

    Args:
        points: P.
        rows: B.
        location: mean of log g: minus twice the logarithm of the data's deviation.
        scale: > 0, of the law.
        generator: of the draw.
        device: of the result.
        dtype: of the result.

    Raises:
        ValueError: a number out of range.
    """
    points, rows = whole("points", points, 1), whole("rows", rows, 1)
    location, scale = number("location", location), number("scale", scale, 0.0, above=True)
    draw = torch.rand(points, rows, generator=generator, device=device, dtype=dtype)
    part = torch.arange(points, device=device, dtype=dtype).unsqueeze(1)
    u = ((part + draw) / points).clamp(1e-4, 1 - 1e-4)
    g = (location + scale * torch.logit(u)).exp()
    return g, g * scale / (u * (1 - u)) / points
