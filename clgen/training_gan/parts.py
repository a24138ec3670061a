"""What the networks of GANs are made of. Shape legend: B images, C channels, H x W size."""

from math import log2

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ...core.check import whole

SIZES = (16, 32, 64, 128)
LEAK = 0.2


def spectral(module: nn.Module) -> nn.Module:
    """Return the module with its weight divided by its largest singular value (Miyato et al. 2018, section 2.1).

    One power iteration at each forward pass in training mode; https://arxiv.org/abs/1802.05957.
    """
    normed: nn.Module = spectral_norm(module)
    return normed


def doublings(size: int) -> int:
    """Return how often 4 pixels must be doubled to make `size`.

    Raises:
        ValueError: another size than 16, 32, 64 or 128.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(map(str, SIZES))}, got {size!r}")
    return int(log2(size)) - 2


def widths(size: int, width: int) -> list[int]:
    """Return the channels of each resolution from the image down to 4 x 4: `width`, doubled at most three times."""
    whole("width", width, 1)
    return [width * min(2**i, 8) for i in range(doublings(size))]


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias depend on the class (Dumoulin et al. 2017, eq. 5; https://arxiv.org/abs/1610.07629).

        y_c = gain_c(label) (x_c - mean_c) / std_c + bias_c(label)

    Without classes it is plain batch norm. Gains begin at 1, biases at 0.

    Args:
        channels: C.
        classes: 0 for none.
    """

    def __init__(self, channels: int, classes: int = 0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not classes)
        self.gain = self.bias = None
        if classes:
            self.gain, self.bias = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
            nn.init.ones_(self.gain.weight)
            nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return `(B, C, H, W)`; labels `(B,)` long, where there are classes."""
        x = self.norm(x)
        if self.gain is None or self.bias is None:
            return x
        return x * self.gain(labels)[..., None, None] + self.bias(labels)[..., None, None]


def normal_weights(module: nn.Module, std: float = 0.02) -> None:
    """Draw the weights of convolutions and linear layers from N(0, std^2), as DCGAN does; biases begin at 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
