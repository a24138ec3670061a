"""The convolutional networks that reinforcement learning uses: of DQN and of IMPALA."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..check import whole
from .inputs import image_shape

LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, kernel, stride
SECTIONS = (16, 32, 32)  # channels


class NatureCNN(nn.Module):
    """`(N, C, H, W) -> (N, out)`: three convolutions and a linear layer, ReLU after each.

    The network of Mnih et al. 2015 (https://doi.org/10.1038/nature14236, Methods), for floating images. Layer by layer
    and, under the same seed, weight by weight Stable-Baselines3's network of that name.

    Args:
        input_shape: (C, H, W), for stacked frames all their channels; H and W at least 36.
        out: dimension of the output, also `out_features`.

    Raises:
        ValueError: a size is not a whole number in its range.
    """

    def __init__(self, input_shape: Sequence[int], out: int = 512) -> None:
        super().__init__()
        channels, *sides = image_shape("NatureCNN", input_shape, 36)
        self.out_features = whole("out", out, 1)
        layers: list[nn.Module] = []
        for wide, kernel, stride in LAYERS:
            layers += [nn.Conv2d(channels, wide, kernel, stride), nn.ReLU()]
            channels = wide
            sides = [(side - kernel) // stride + 1 for side in sides]
        flat = channels * sides[0] * sides[1]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, self.out_features), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, out)` features >= 0 of `(N, C, H, W)` images."""
        return self.layers(x)


class ImpalaCNN(nn.Module):
    """`(N, C, H, W) -> (N, out)`: the residual network of 15 convolutions of Espeholt et al. 2018, figure 3 right.

    Three sections of convolution, max pooling (3, stride 2) and two residual blocks, then ReLU, a linear layer and ReLU
    (https://arxiv.org/abs/1802.01561).

    Deviations: no LSTM after it; pooling pads one pixel on each side, where the paper's code pads as few as needed.

    Args:
        input_shape: (C, H, W), for stacked frames all their channels; H and W at least 8.
        out: dimension of the output, also `out_features`.
        width: multiplies the channels 16, 32, 32.

    Raises:
        ValueError: a size is not a whole number in its range.
    """

    def __init__(self, input_shape: Sequence[int], out: int = 256, width: int = 1) -> None:
        super().__init__()
        channels, *sides = image_shape("ImpalaCNN", input_shape, 8)
        self.out_features = whole("out", out, 1)
        factor = whole("width", width, 1)
        layers: list[nn.Module] = []
        for wide in SECTIONS:
            wide *= factor
            layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
            layers += [_Residual(wide), _Residual(wide)]
            channels = wide
            sides = [(side + 1) // 2 for side in sides]
        flat = channels * sides[0] * sides[1]
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(flat, self.out_features), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, out)` features >= 0 of `(N, C, H, W)` images."""
        return self.layers(x)


class _Residual(nn.Module):
    """`x + conv(relu(conv(relu(x))))`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.layers = nn.Sequential(nn.ReLU(), first, nn.ReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)
