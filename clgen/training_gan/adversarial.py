"""The adversarial game of a run: the losses of both players and what the discriminator's gradient is fined for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.check import number, whole
from .penalties import Score, one_centred, zero_centred


@dataclass(frozen=True)
class Adversarial:
    """Losses of both players, and penalties.

        discriminator's loss + interval (r1 / 2 zero_centred(real) + r2 / 2 zero_centred(fake)
                                         + gradient_penalty one_centred(real, fake))    every interval-th step

    Lazy penalties keep their strength by the factor `interval` (Karras et al. 2020, section 3.1;
    https://arxiv.org/abs/1912.04958). They are taken at what the discriminator sees, augmented images, from a forward
    pass of their own in float32.

    Args:
        discriminator: `(real, fake) -> scalar` of scores `(B,)`.
        generator: likewise; `real` is None unless `paired`.
        paired: whether the generator's loss needs scores of real images.
        r1: gamma of R1, at real images; >= 0.
        r2: gamma of R2, at generated ones; >= 0.
        gradient_penalty: lambda of Wasserstein GANs, >= 0.
        interval: steps of the discriminator from one penalty to the next, >= 1.
        vanishing: a discriminator's loss below this tells that the generator gets no gradient to learn from; None for
            a loss that tells no such thing.

    Raises:
        ValueError: a number out of range.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor | None, Tensor], Tensor]
    paired: bool = False
    r1: float = 0.0
    r2: float = 0.0
    gradient_penalty: float = 0.0
    interval: int = 1
    vanishing: float | None = None

    def __post_init__(self) -> None:
        for name in ("r1", "r2", "gradient_penalty"):
            number(name, getattr(self, name), 0.0)
        whole("interval", self.interval, 1)
        if self.vanishing is not None:
            number("vanishing", self.vanishing, 0.0)

    @property
    def penalised(self) -> bool:
        """Whether there is a penalty."""
        return max(self.r1, self.r2, self.gradient_penalty) > 0

    def penalty(self, score: Score, fake_score: Score, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        """Return the weighted sum of penalties, times the interval.

        Args:
            score: of real images, with their labels.
            fake_score: of generated ones, with theirs.
            real: `(B, C, H, W)`.
            fake: likewise.
            mix: `(B,)` in [0, 1), where between them the one-centred penalty is taken.
        """
        total = torch.zeros((), device=real.device)
        if self.r1:
            total = total + self.r1 / 2 * zero_centred(score, real)
        if self.r2:
            total = total + self.r2 / 2 * zero_centred(fake_score, fake)
        if self.gradient_penalty:
            total = total + self.gradient_penalty * one_centred(score, real, fake, mix)
        return self.interval * total
