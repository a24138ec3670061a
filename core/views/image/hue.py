"""Rotation of the hue. Shape legend: N images, H x W their size."""

import torch
from torch import Tensor

TINY = 1e-12
"""Stands for the chroma of a grey pixel, whose hue does not matter."""


def rotate_hue(x_N3HW: Tensor, turns_N: Tensor) -> Tensor:
    """Rotate the hue of RGB images in [0, 1] on the hexagon of HSV, keeping value and saturation; overwrites `x`.

    On the hexagon, whose way round is 6, red, green and blue lie at 0, 2 and 4. A channel of a pixel with largest
    channel V, smallest m and chroma V - m is `m + (V - m) clamp(2 - d, 0, 1)`, d in [0, 3] being the distance of the
    hue from the channel's place. Hence the distance from red is 1 + (G + B - R - m) / (V - m), and the hue is
    that, counted negative where B > G: no case is distinguished. Equals torchvision's `adjust_hue` but for rounding.

    Args:
        x_N3HW: `(N, 3, H, W)` in [0, 1].
        turns_N: `(N,)` in [-0.5, 0.5], share of a whole turn.
    """
    red, green, blue = x_N3HW[:, :1], x_N3HW[:, 1:2], x_N3HW[:, 2:]
    least = x_N3HW.amin(1, keepdim=True)
    chroma = x_N3HW.amax(1, keepdim=True).sub_(least)
    from_red = torch.add(green, blue).sub_(red).sub_(least).div_(chroma.clamp(min=TINY)).add_(1)
    from_green = from_red.copysign_(green - blue).add_((turns_N * 6 - 2).view(-1, 1, 1, 1))
    from_green.sub_(torch.mul(from_green, 1 / 6).round_(), alpha=6)  # into [-3, 3]
    places = torch.arange(-2.0, 4.0, 2.0, device=x_N3HW.device).view(3, 1, 1)
    away = torch.sub(from_green, places, out=x_N3HW).abs_()  # in [0, 5]; the distance is 3 - |3 - away|
    two_less_one = away.sub_(3).abs_().clamp_(1, 2)  # clamp(2 - distance, 0, 1) + 1
    return torch.addcmul(least.sub_(chroma), two_less_one, chroma, out=x_N3HW)
