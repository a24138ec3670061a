"""ADA: augmentation as often as it takes to keep the discriminator from overfitting.

Shape legend: B images, C channels, H x W size.
"""

from math import pi, sqrt

import torch
from torch import Tensor

from ...core.check import number, whole
from ...core.distributed import averaged
from ...core.distributed.processes import rank_and_size
from .augment import Augment, affine


class ADA(Augment):
    """Karras et al. 2020, sections 2 and 3, https://arxiv.org/abs/2006.06676.

    Each transformation happens with probability p, which follows the sign of the discriminator's scores of real images:

        r = mean sign(score of real images)    over `interval` steps
        p <- clip(p + sign(r - target) B interval / images, 0, 1)

    Transformations: mirroring, isotropic scale 2^N(0, .2), rotation U(-pi, pi), anisotropic scale 2^N(0, .2), shift
    N(0, .125) of the size; brightness N(0, .2), contrast 2^N(0, .5), saturation 2^N(0, 1).

    Deviations: no rotations by 90 degrees, no hue and no inversion of luma; one rotation, with probability p; bilinear
    interpolation with reflected borders where the paper filters against aliasing.

    Args:
        target: of r, in (-1, 1).
        interval: discriminator steps from one change of p to the next, >= 1.
        images: real images in which p can go from 0 to 1, >= 1; the paper takes 500,000.
        flip: whether to mirror; not for digits or letters.
        rotate: whether to rotate.

    Raises:
        ValueError: a number out of range.
    """

    numbers = 18
    probability: Tensor
    signs: Tensor

    def __init__(
        self, target: float = 0.6, interval: int = 4, images: int = 500_000, *, flip: bool = True, rotate: bool = True
    ) -> None:
        super().__init__()
        self.target = number("target", target, -1.0, 1.0, above=True, below=True)
        self.interval, self.images = whole("interval", interval, 1), whole("images", images, 1)
        self.flip, self.rotate = flip, rotate
        self.register_buffer("probability", torch.zeros(()))
        self.register_buffer("signs", torch.zeros(()))  # summed since the last change

    def forward(self, images: Tensor, u: Tensor) -> Tensor:
        """Return `(B, C, H, W)`, by eighteen numbers an image."""
        u = u.to(images)
        happens = (u[:, :9] < self.probability).to(images)
        drawn = u[:, 9:]
        normal = sqrt(2) * torch.erfinv((2 * drawn - 1).clamp(-1 + 1e-6, 1 - 1e-6))
        mirror = 1 - 2 * happens[:, 0] * (drawn[:, 0] < 0.5) if self.flip else 1.0
        scale = torch.exp2(0.2 * normal[:, 1] * happens[:, 1])
        angle = pi * (2 * drawn[:, 2] - 1) * happens[:, 2] * float(self.rotate)
        aspect = torch.exp2(0.2 * normal[:, 3] * happens[:, 3])
        moves = 2 * 0.125 * normal[:, 4:6] * happens[:, 4:5]
        images = affine(images, angle, mirror / (scale * aspect), aspect / scale, moves)
        images = images + (0.2 * normal[:, 6] * happens[:, 6]).view(-1, 1, 1, 1)
        images = images * torch.exp2(0.5 * normal[:, 7] * happens[:, 7]).view(-1, 1, 1, 1)
        if images.shape[1] == 1:
            return images
        grey = images.mean(1, keepdim=True)
        return (images - grey) * torch.exp2(normal[:, 8] * happens[:, 8]).view(-1, 1, 1, 1) + grey

    @torch.no_grad()
    def observe(self, real: Tensor, step: int) -> None:
        """Add the signs of scores, and move the probability every `interval` steps; nothing is read from the device.

        Args:
            real: `(B,)` scores of this process's real images.
            step: of the discriminator, counted from 1.
        """
        self.signs += averaged(real.sign().mean())  # at each step: a checkpoint keeps one process's sum for all
        if step % self.interval:
            return
        change = len(real) * rank_and_size()[1] * self.interval / self.images
        sign = (self.signs / self.interval - self.target).sign()
        self.probability.add_(sign * change).clamp_(0, 1)
        self.signs.zero_()
