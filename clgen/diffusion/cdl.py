"""CDL, the contrastive diffusion loss: the denoiser tells noised images from clean ones. Shape legend: B rows."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...core.check import choice, number, whole
from ...core.losses.noise_classifier import log_density_ratio, noise_classification, snr_points
from ...core.pairs import Outcome
from .noise_levels import log_snr

PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow")


class NoiseClassifier:
    """Wu et al. 2024, https://arxiv.org/abs/2407.08946, as a reference: no tap, no heads.

        loss = F.mse_loss(prediction, noise) + 1.0 * NoiseClassifier(denoise)(images).loss

    Half of the images get noise of a drawn deviation; both halves are classified by log p_s(z) - log p(z), which the
    errors of one denoiser give for all deviations: that of noised data follows from that of data,

        E[x + s e | w] = D(w, q) + s^2/q^2 (w - D(w, q)),    q^2 = s^2 + r^2,    w = x + s e + r e'.

    The cost is 2 x points further evaluations of the denoiser for every image, with gradient: at 4 points a step takes
    6 to 9 times as long. The authors evaluate it on two images a batch for that reason; give as many as you can
    afford. Few points make log p noisy.

    Deviations: noise is added to the image without shrinking it, its deviation is drawn for each row, and points are
    stratified.

    Args:
        denoise: `(w, deviation (B,)) -> ` estimate of x, of w = x + deviation noise, see `denoiser`.
        points: noise levels that each log-density is taken from, >= 1.
        deviation: range (low, high) of s, drawn uniformly in log s; in the units of the image.
        location: mean of the log-SNR of the levels.
        scale: of the law of the levels, see `snr_points`.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        *,
        points: int = 4,
        deviation: tuple[float, float] = (0.1, 5.0),
        location: float = 0.0,
        scale: float = 2.0,
    ) -> None:
        self.denoise, self.points = denoise, whole("points", points, 1)
        low = number("the lower deviation", deviation[0], 0.0, above=True)
        self.deviation = (low, number("the upper deviation", deviation[1], low))
        self.location, self.scale = number("location", location), number("scale", scale, 0.0, above=True)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Outcome:
        """Return loss and `accuracy` for images `(B, ...)`, the second half of which is noised."""
        rows = len(images)
        noised = torch.arange(rows, device=images.device) >= (rows + 1) // 2
        low, high = (torch.tensor(one, device=images.device).log() for one in self.deviation)
        draw = torch.rand(rows, generator=generator, device=images.device)
        deviation = (low + (high - low) * draw).exp()
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        z = images + _wide(deviation * noised, images) * noise
        ratio = self.log_ratio(z, deviation, generator)
        correct = ((ratio > 0) == noised).float().mean()
        return Outcome(noise_classification(ratio, noised), {"accuracy": correct})

    def log_ratio(self, z: Tensor, deviation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return `(B,)` log p_s(z) - log p(z) by 2 x points evaluations of the denoiser on B rows.

        Args:
            z: `(B, ...)`.
            deviation: `(B,)` s > 0.
            generator: of levels and noise.
        """
        g, weight = snr_points(
            self.points, len(z), self.location, self.scale, generator=generator, device=z.device, dtype=z.dtype
        )
        errors = []
        for r in g.rsqrt():
            w = z + _wide(r, z) * torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
            q = (deviation.square() + r.square()).sqrt()
            of_clean, of_noised = self.denoise(torch.cat((w, w)), torch.cat((r, q))).chunk(2)
            of_noised = of_noised + _wide((deviation / q).square(), z) * (w - of_noised)
            errors.append([(z - found).float().square().flatten(1).sum(1) for found in (of_clean, of_noised)])
        clean, noised = (torch.stack(one) for one in zip(*errors, strict=True))
        return log_density_ratio(clean, noised, weight.to(clean.dtype))


def denoiser(
    predict: Callable[[Tensor, Tensor], Tensor],
    alpha_bar: Tensor | None = None,
    *,
    prediction: str = "epsilon",
    steps: int = 1000,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the estimate of x from w = x + deviation noise that a model of diffusers makes.

    w is scaled to the model's own noisy images, the timestep is the one of the nearest log-SNR, and deviations beyond
    the schedule get its last timestep.

    Args:
        predict: `(noisy, timesteps (B,)) -> prediction`, such as `lambda x, t: unet(x, t).sample`.
        alpha_bar: `scheduler.alphas_cumprod`; not for `flow`.
        prediction: what the model predicts: `epsilon`, `sample`, `v_prediction`, or `flow`, noise - image.
        steps: of `flow`, whose timesteps are sigma times it.

    Raises:
        ValueError: another prediction, or no alpha_bar where it is needed.
    """
    choice("prediction", prediction, PREDICTIONS)
    if prediction == "flow":

        def by_flow(w: Tensor, deviation: Tensor) -> Tensor:
            sigma = deviation / (1 + deviation)
            noisy = w * _wide(1 - sigma, w)
            return noisy - _wide(sigma, w) * predict(noisy, sigma * steps)

        return by_flow
    if alpha_bar is None:
        raise ValueError(f"a denoiser of prediction={prediction} needs the scheduler's alphas_cumprod, got None")
    levels = log_snr(alpha_bar.double())

    def by_schedule(w: Tensor, deviation: Tensor) -> Tensor:
        there = levels.to(w.device)
        wanted = -2 * deviation.double().log()
        right = torch.searchsorted(there.flip(0), wanted).clamp(1, len(there) - 1)
        candidates = len(there) - 1 - torch.stack((right - 1, right))
        gap = (there[candidates] - wanted).abs()
        timesteps = candidates.gather(0, gap.argmin(0, keepdim=True))[0]
        signal = _wide((1 + deviation.square()).rsqrt(), w)
        noisy, sigma = signal * w, (1 - signal.square()).sqrt()
        found = predict(noisy, timesteps)
        if prediction == "epsilon":
            return (noisy - sigma * found) / signal
        return found if prediction == "sample" else signal * noisy - sigma * found

    return by_schedule


def _wide(per_row: Tensor, like: Tensor) -> Tensor:
    return per_row.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
