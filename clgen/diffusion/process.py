"""How an image turns into noise, and which of diffusers' schedulers turns noise into an image.

Shape legend: B rows; x_t = alpha x + sigma noise.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ...core.check import choice, number, whole
from .noise_levels import alphas_cumprod

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SAMPLERS = ("ddpm", "ddim")
DENOISED = ("epsilon", "sample", "v_prediction")
LEAST = 1e-6  # of alpha-bar, below which an image cannot be had from the noise in it
SPACINGS = ("leading", "trailing", "linspace")


class Levels(NamedTuple):
    """Shares of image and noise, `(B,)` each: x_t = alpha x + sigma noise."""

    alpha: Tensor
    sigma: Tensor

    @property
    def signal(self) -> Tensor:
        """`(B,)` alpha / sqrt(alpha^2 + sigma^2), in [0, 1]: sqrt(alpha-bar) at the same signal-to-noise ratio."""
        return self.alpha / (self.alpha.square() + self.sigma.square()).sqrt()


class Process(Protocol):
    """What a YAML of `configs/diffusion/scheduler/` describes.

    Attributes:
        prediction: what the denoiser puts out, one of `prediction.PREDICTIONS`.
        timesteps: T; the denoiser is told numbers in [0, T).
    """

    prediction: str
    timesteps: int

    def draw(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return `(rows,)` timesteps to train at, on the generator's device."""
        ...

    def levels(self, timesteps: Tensor) -> Levels:
        """Return the shares of image and noise at `(B,)` timesteps."""
        ...

    def sampler(self) -> Any:
        """Return a new scheduler of diffusers that samples."""
        ...


@dataclass
class Diffusion:
    """The variance-preserving process, alpha^2 + sigma^2 = 1, at T timesteps that are drawn uniformly.

    Ho et al. 2020, https://arxiv.org/abs/2006.11239, eq. 4; sampling by it (`ddpm`) or by Song et al. 2021
    (`ddim`, https://arxiv.org/abs/2010.02502, eq. 12 with eta 0).

    Args:
        sampler_name: ddpm or ddim.
        prediction: epsilon, sample or v_prediction.
        schedule: of beta: linear, scaled_linear or squaredcos_cap_v2, as diffusers names them, with its defaults.
        timesteps: T.
        spacing: which timesteps a short sampling visits: leading, trailing or linspace (Lin et al. 2024,
            https://arxiv.org/abs/2305.08891, table 2).
        clip: keep the image that each sampling step foresees within [-1, 1]. For DDPM; diffusers' DDIM then mixes a
            clipped image with the noise that was foreseen with the unclipped one, and images get worse by it.

    Raises:
        ValueError: a value breaks its rule, or sampling is to begin where epsilon says nothing of the image.
    """

    sampler_name: str = "ddim"
    prediction: str = "epsilon"
    schedule: str = "squaredcos_cap_v2"
    timesteps: int = 1000
    spacing: str = "leading"
    clip: bool = False
    _alphas: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        choice("sampler", self.sampler_name, SAMPLERS)
        choice("prediction", self.prediction, DENOISED)
        choice("schedule", self.schedule, SCHEDULES)
        choice("spacing", self.spacing, SPACINGS)
        whole("timesteps", self.timesteps, 2)
        self._alphas = alphas_cumprod(self.schedule, self.timesteps)
        if self.prediction == "epsilon" and self.spacing != "leading" and not self.clip and self._alphas[-1] < LEAST:
            raise ValueError(
                f"epsilon with spacing {self.spacing} must have clip=true on the schedule {self.schedule}, which "
                f"leaves {self._alphas[-1].sqrt().item():.1e} of the image at its last timestep, that a step would "
                "divide by: take spacing=leading or v_prediction, got clip=false"
            )

    def draw(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return `(rows,)` long timesteps in [0, T)."""
        return torch.randint(self.timesteps, (rows,), generator=generator, device=generator.device)

    def levels(self, timesteps: Tensor) -> Levels:
        """Return sqrt(alpha-bar) and sqrt(1 - alpha-bar), float32, at `(B,)` timesteps, rounded down."""
        self._alphas = self._alphas.to(timesteps.device)
        found = self._alphas[timesteps.long().clamp(0, self.timesteps - 1)]
        return Levels(found.sqrt().float(), (1 - found).sqrt().float())

    def sampler(self) -> Any:
        """Return a `DDPMScheduler` or `DDIMScheduler`."""
        from diffusers import DDIMScheduler, DDPMScheduler

        kind = DDPMScheduler if self.sampler_name == "ddpm" else DDIMScheduler
        return kind(
            num_train_timesteps=self.timesteps,
            beta_schedule=self.schedule,
            prediction_type=self.prediction,
            timestep_spacing=self.spacing,
            clip_sample=self.clip,
        )


@dataclass
class Flow:
    """The straight process x_t = (1 - sigma) x + sigma noise, whose velocity noise - x the denoiser predicts.

    Liu et al. 2023, https://arxiv.org/abs/2209.03003; Lipman et al. 2023, https://arxiv.org/abs/2210.02747. The
    denoiser is told sigma T. Noise levels are drawn uniformly, or by a normal distribution of log(sigma / (1 - sigma))
    (Esser et al. 2024, https://arxiv.org/abs/2403.03206, section 3.1).

    Sampling is Euler's method, by diffusers' `DPMSolverMultistepScheduler` of order 1 with flow sigmas, which is the
    same step as `FlowMatchEulerDiscreteScheduler`'s (proved in the tests) but, unlike that one, runs in `DiTPipeline`,
    and spends no step between sigma 1/T and 0.

    Args:
        timesteps: T.
        order: of the solver; 1 is Euler, 2 and 3 use earlier steps too.
        normal: standard deviation of log(sigma / (1 - sigma)), > 0; None draws sigma uniformly.

    Raises:
        ValueError: a value breaks its rule.
    """

    timesteps: int = 1000
    order: int = 1
    normal: float | None = None
    prediction: str = "flow"

    def __post_init__(self) -> None:
        whole("timesteps", self.timesteps, 2)
        choice("order", str(self.order), ("1", "2", "3"))
        choice("prediction", self.prediction, ("flow",))
        if self.normal is not None:
            number("normal", self.normal, 0.0, above=True)

    def draw(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return `(rows,)` float32 timesteps sigma T."""
        device = generator.device
        if self.normal is None:
            return torch.rand(rows, generator=generator, device=device) * self.timesteps
        return (torch.randn(rows, generator=generator, device=device) * self.normal).sigmoid() * self.timesteps

    def levels(self, timesteps: Tensor) -> Levels:
        """Return 1 - sigma and sigma, float32, at `(B,)` timesteps sigma T."""
        sigma = (timesteps.float() / self.timesteps).clamp(0, 1)
        return Levels(1 - sigma, sigma)

    def sampler(self) -> Any:
        """Return a `DPMSolverMultistepScheduler`."""
        from diffusers import DPMSolverMultistepScheduler

        return DPMSolverMultistepScheduler(
            num_train_timesteps=self.timesteps,
            algorithm_type="dpmsolver++",
            solver_order=self.order,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=1.0,
        )
