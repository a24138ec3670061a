"""Random brightness, contrast, saturation and hue. Shape legend: N images, C channels, H x W their size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...check import number
from .gray import check_colours, luminance
from .hue import rotate_hue
from .operation import between, on_chosen

BRIGHTNESS, CONTRAST, SATURATION = range(3)


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue of some images, in an order of its own for each.

    Brightness, contrast and saturation move an image x towards (factor < 1) or away from (factor > 1) black, its mean
    luminance, or its own luminance y: `clamp(y + factor (x - y), 0, 1)`, the factor uniform in
    [max(0, 1 - strength), 1 + strength]. Hue is rotated on the hexagon of HSV. The definitions, the clamp after each
    step and the uniformly random order are those of torchvision's `ColorJitter`, applied with probability p. Grey
    images have neither saturation nor hue to change.

    Args:
        brightness: strength, >= 0.
        contrast: strength, >= 0.
        saturation: strength, >= 0.
        hue: largest rotation, in [0, 0.5] turns.
        p: probability, in [0, 1].

    Raises:
        ValueError: an argument is outside of its range; called on images that are neither grey nor RGB.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    p: float = 0.8

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            number(name, getattr(self, name), 0.0)
        number("hue", self.hue, 0.0, 0.5)
        number("p", self.p, 0.0, 1.0)

    @property
    def draws(self) -> int:
        """Return 9: whether, three factors and a rotation, the order of the three, the place of the rotation in it."""
        return 9

    def parameters(self, u: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return what each image goes through.

        Returns:
            `(N, 3)` long, which of brightness, contrast and saturation is first, second, third; `(N, 3)` their factors
            in this order, 1 where nothing changes; `(N,)` rotation of the hue in turns; `(N,)` long, how many of the
            three come before it, -1 where there is none.
        """
        chosen_N1 = u[:, :1] < self.p
        strengths = (self.brightness, self.contrast, self.saturation)
        factor_N3 = torch.stack([between(u[:, i + 1], max(0.0, 1 - s), 1 + s) for i, s in enumerate(strengths)], 1)
        order_N3 = u[:, 5:8].argsort(1)
        before_N = (u[:, 8] * 4).long()
        return (
            order_N3,
            torch.where(chosen_N1, factor_N3.gather(1, order_N3), 1.0),
            between(u[:, 4], -self.hue, self.hue),
            torch.where(chosen_N1.squeeze(1), before_N, -1),
        )

    def __call__(self, x: Tensor, *parameters: Tensor) -> Tensor:
        """Return `(N, C, H, W)`."""
        check_colours(x, "ColorJitter")
        order_N3, factor_N3, turns_N, before_N = parameters
        has_hue = self.hue > 0 and x.shape[1] == 3
        for done in range(4):
            if has_hue:
                x = on_chosen(x, before_N == done, rotate_hue, turns_N)
            if done < 3:
                x = blend(x, order_N3[:, done], factor_N3[:, done])
        return x


def blend(x: Tensor, kind_N: Tensor, factor_N: Tensor) -> Tensor:
    """Change the brightness, contrast or saturation of each image, whichever `kind` says, by its factor.

    Overwrites `x` `(N, C, H, W)`.
    """
    kind, factor = kind_N.view(-1, 1, 1, 1), factor_N.view(-1, 1, 1, 1)
    y = luminance(x)
    mean = y.mean((2, 3), keepdim=True).mul_(kind == CONTRAST)
    y.mul_(kind == SATURATION).add_(mean)
    return x.lerp_(y, 1 - factor).clamp_(0, 1)
