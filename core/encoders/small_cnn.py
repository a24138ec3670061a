"""A small convolutional network for small images."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..check import choice, whole
from .inputs import image_shape

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(8, channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
}


class SmallCNN(nn.Module):
    """`(N, C, H, W) -> (N, 4 width)`: three 3 x 3 convolutions, the mean over all pixels of what comes out.

    Each convolution is followed by a normalisation and ReLU; the second and third have stride 2 and each twice the
    channels of the one before. With one channel and the default width these are 92 896 parameters, and a batch of
    8 x 8 images takes about a millisecond on one core.

    Args:
        input_shape: (C, H, W), H and W at least 4.
        width: channels of the first convolution, a multiple of 8.
        norm: `batch`; or, without statistics of the batch, `group` (8 groups) or `layer` (one group, all of C, H, W).

    Raises:
        ValueError: a size is not a whole number in its range, or the norm is unknown.
    """

    def __init__(self, input_shape: Sequence[int], width: int = 32, norm: str = "batch") -> None:
        super().__init__()
        channels, _, _ = image_shape("SmallCNN", input_shape, 4)
        make = NORMS[choice("norm", norm, NORMS)]
        if whole("width", width, 8) % 8:
            raise ValueError(f"width must be a multiple of 8, got {width}")
        layers: list[nn.Module] = []
        for wide, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            layers += [nn.Conv2d(channels, wide, 3, stride, padding=1, bias=False), make(wide), nn.ReLU()]
            channels = wide
        self.out_features = channels
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, 4 width)` features >= 0 of `(N, C, H, W)` images."""
        return self.layers(x)
