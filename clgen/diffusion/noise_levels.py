"""How much of the image a timestep leaves. Shape legend: B rows, T timesteps of the schedule."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.check import choice, shape, whole

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "flow")
LEAST = 1e-6  # of alpha-bar and of 1 - alpha-bar: log-SNR stays within -13.8 and 13.8


def alphas_cumprod(schedule: str, steps: int = 1000) -> Tensor:
    """Return `(T,)` alpha-bar in float64: at timestep t, x_t = sqrt(alpha-bar_t) x + sqrt(1 - alpha-bar_t) noise.

    Args:
        schedule: as diffusers names them, with its defaults: `linear` (Ho et al. 2020, beta from 0.0001 to 0.02),
            `scaled_linear` (linear in sqrt(beta), of latent diffusion), or `squaredcos_cap_v2` (the cosine schedule of
            Nichol and Dhariwal 2021, eq. 17). For `flow`, x_t = (1 - t/T) x + t/T noise, it is the alpha-bar of equal
            signal-to-noise ratio.
        steps: T.

    Raises:
        ValueError: another schedule, or T is not a whole number >= 1.
    """
    choice("schedule", schedule, SCHEDULES)
    steps = whole("steps", steps, 1)
    if schedule == "flow":
        return flow_alphas(torch.arange(steps, dtype=torch.float64) / steps)
    if schedule == "squaredcos_cap_v2":
        angle = (torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * math.pi / 2
        left = angle.cos().square()
        beta = (1 - left[1:] / left[:-1]).clamp(max=0.999)
    elif schedule == "scaled_linear":
        beta = torch.linspace(1e-4**0.5, 0.02**0.5, steps, dtype=torch.float64).square()
    else:
        beta = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)
    return (1 - beta).cumprod(0)


def flow_alphas(sigma: Tensor) -> Tensor:
    """Return the alpha-bar whose signal-to-noise ratio is that of (1 - sigma) x + sigma noise; sigma in [0, 1]."""
    return (1 - sigma).square() / ((1 - sigma).square() + sigma.square())


def log_snr(alpha_bar: Tensor) -> Tensor:
    """Return log(alpha-bar / (1 - alpha-bar)), the log signal-to-noise ratio, within -13.8 and 13.8 nats."""
    kept = alpha_bar.clamp(LEAST, 1 - LEAST)
    return kept.log() - (1 - kept).log()


class NoiseLevels(nn.Module):
    """From timesteps to the signal that is left, sqrt(alpha-bar) in [0, 1], and to the log-SNR.

    Args:
        schedule: see `alphas_cumprod`; None where every call comes with its `signal`.
        steps: T, diffusers' `num_train_timesteps`.
        alpha_bar: `(T,)`, in place of a schedule by name: `scheduler.alphas_cumprod`.

    Raises:
        ValueError: an unknown schedule, or values outside [0, 1].
    """

    table: Tensor | None
    log_table: Tensor | None

    def __init__(
        self, schedule: str | None = "linear", steps: int = 1000, alpha_bar: Tensor | Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.steps = whole("steps", steps, 1)
        self.schedule = None if schedule is None else choice("schedule", schedule, SCHEDULES)
        values = None
        if alpha_bar is not None:
            self.schedule, values = "alpha_bar", _checked(alpha_bar)
        elif self.schedule not in (None, "flow"):
            values = alphas_cumprod(schedule or "", steps)
        # Not in the state_dict: the config has them. The logarithm is taken here, in float64.
        self.register_buffer("table", None if values is None else values.sqrt().float(), persistent=False)
        self.register_buffer("log_table", None if values is None else log_snr(values).float(), persistent=False)

    def signal(self, timesteps: Tensor, signal: Tensor | None = None) -> Tensor:
        """Return `(B,)` sqrt(alpha-bar) in float32.

        Args:
            timesteps: `(B,)` long; of `flow`, `sigma T` as in diffusers, whole or not.
            signal: `(B,)` sqrt(alpha-bar) where the caller knows it, which then counts.

        Raises:
            ValueError: a shape or dtype that does not fit, or neither schedule nor signal.
        """
        self._check(timesteps, signal)
        if signal is not None:
            return signal.float()
        return flow_alphas(self._sigma(timesteps)).sqrt() if self.table is None else self.table[timesteps]

    def log_snr(self, timesteps: Tensor, signal: Tensor | None = None) -> Tensor:
        """Return `(B,)` log-SNR in float32, within -13.8 and 13.8; arguments and errors as for `signal`."""
        self._check(timesteps, signal)
        if signal is not None:
            return log_snr(signal.float().square())
        return log_snr(flow_alphas(self._sigma(timesteps))) if self.log_table is None else self.log_table[timesteps]

    def _sigma(self, timesteps: Tensor) -> Tensor:
        return (timesteps.float() / self.steps).clamp(0, 1)

    def _check(self, timesteps: Tensor, signal: Tensor | None) -> None:
        if timesteps.ndim != 1:
            raise ValueError(f"timesteps must be one for each row, (B,), got {shape(timesteps)}")
        if signal is not None:
            if signal.shape != timesteps.shape or not signal.is_floating_point():
                raise ValueError(
                    f"signal must be floating {shape(timesteps)} like the timesteps, got {signal.dtype} {shape(signal)}"
                )
        elif self.schedule is None:
            raise ValueError("the signal left at a timestep must be known: give a schedule, or loss(signal=...)")
        elif timesteps.is_floating_point() and self.schedule != "flow":
            raise ValueError(
                f"timesteps of the schedule {self.schedule} must be whole numbers, got {timesteps.dtype}; for others "
                "give loss(signal=...)"
            )


def _checked(alpha_bar: Tensor | Sequence[float]) -> Tensor:
    values = torch.as_tensor(alpha_bar).detach().double().cpu()
    if values.ndim != 1 or not len(values) or not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"alpha_bar must be values in [0, 1], one for each timestep, got {alpha_bar!r}")
    return values
