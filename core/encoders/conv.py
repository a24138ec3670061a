"""The convolutional network of DQN for images."""

from torch import Tensor, nn

from ..check import whole

LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, kernel, stride


class NatureCNN(nn.Module):
    """`(N, C, H, W) -> (N, out)`: three convolutions and a linear layer, ReLU after each.

    The network of Mnih et al. 2015 (https://doi.org/10.1038/nature14236, Methods), for floating images in [0, 1].

    Args:
        in_channels: channels C, for stacked frames all of them.
        out: dimension of the output, also `out_features`.
        image_size: H = W, or (H, W); at least 36.

    Raises:
        ValueError: a size is not a whole number in its range.
    """

    def __init__(self, in_channels: int, out: int = 512, image_size: int | tuple[int, int] = 84) -> None:
        super().__init__()
        channels = whole("in_channels", in_channels, 1)
        self.out_features = whole("out", out, 1)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        sides = [whole("image_size", height, 36), whole("image_size", width, 36)]
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
