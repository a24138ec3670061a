"""What a denoiser predicts, and how its loss is weighted. Shape legend: B rows; x_t = alpha x + sigma noise."""

import torch
from torch import Tensor

from ...core.check import choice

PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow")


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Return `(B,)` values as `(B, 1, 1, ...)`, to be multiplied with rows."""
    return values.view(-1, *[1] * (like.ndim - 1))


def target(prediction: str, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return what the denoiser is to put out, `(B, ...)`.

        epsilon: noise;    sample: x;    v_prediction: alpha noise - sigma x;    flow: noise - x

    v is of Salimans and Ho 2022 (https://arxiv.org/abs/2202.00512, appendix D); flow of Liu et al. 2023
    (https://arxiv.org/abs/2209.03003, eq. 1) with diffusers' sign and direction of time.

    Args:
        prediction: one of `PREDICTIONS`.
        clean: x, `(B, ...)`.
        noise: likewise.
        alpha: `(B,)`.
        sigma: `(B,)`.

    Raises:
        ValueError: another prediction.
    """
    choice("prediction", prediction, PREDICTIONS)
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return clean
    if prediction == "flow":
        return noise - clean
    return per_row(alpha, clean) * noise - per_row(sigma, clean) * clean


def clean_of(prediction: str, output: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return the image that an output of the denoiser means, `(B, ...)`; arguments as for `target`.

        epsilon: (x_t - sigma e) / alpha;    sample: x;    v_prediction: alpha x_t - sigma v;    flow: x_t - sigma u

    v is right where alpha^2 + sigma^2 = 1, flow where alpha + sigma = 1, which are the processes they belong to.
    """
    choice("prediction", prediction, PREDICTIONS)
    a, s = per_row(alpha, noisy), per_row(sigma, noisy)
    if prediction == "epsilon":
        return (noisy - s * output) / a
    if prediction == "sample":
        return output
    return noisy - s * output if prediction == "flow" else a * noisy - s * output


def min_snr_weight(prediction: str, alpha: Tensor, sigma: Tensor, gamma: float) -> Tensor:
    """Return the `(B,)` factor of each row's squared error that makes it min(SNR, gamma) times that of the image.

        SNR = alpha^2 / sigma^2;    sample: min(SNR, gamma);    epsilon: min(SNR, gamma) / SNR;
        v_prediction: min(SNR, gamma) / (SNR + 1);    flow: sigma^2 min(SNR, gamma)

    Hang et al. 2023, https://arxiv.org/abs/2303.09556, section 3.4. The factor of flow follows from x = x_t - sigma u,
    which makes the error of the image sigma times that of the flow. Written without a division by sigma or alpha that
    could be by 0, so that both ends of the process are finite, but for `sample` at sigma = 0, where it is gamma.

    Args:
        prediction: one of `PREDICTIONS`.
        alpha: `(B,)`.
        sigma: `(B,)`.
        gamma: > 0; the paper's is 5.
    """
    choice("prediction", prediction, PREDICTIONS)
    signal, noise = alpha.square(), sigma.square()
    clipped = torch.minimum(signal, gamma * noise)  # sigma^2 min(SNR, gamma)
    if prediction == "epsilon":
        return torch.where(signal > gamma * noise, gamma * noise / signal.clamp(min=1e-20), torch.ones_like(signal))
    if prediction == "v_prediction":
        return clipped / (signal + noise)
    if prediction == "flow":
        return clipped
    return torch.where(signal > gamma * noise, torch.full_like(signal, gamma), signal / noise.clamp(min=1e-20))
