"""SN-ResNet: residual players, the discriminator spectrally normalised. Shape legend: B images, h x w size of a map."""

from torch import Tensor, nn
from torch.nn import functional

from ...core.check import whole
from .dcgan import normalise
from .parts import ConditionalBatchNorm, doublings, widths
from .players import Backbone, Discriminator, Generator, Head
from .sndcgan import Normed


class Up(nn.Module):
    """A residual block that doubles the size, by nearest neighbours before its first convolution."""

    def __init__(self, channels: int, out: int, classes: int) -> None:
        super().__init__()
        self.first_norm = ConditionalBatchNorm(channels, classes)
        self.second_norm = ConditionalBatchNorm(out, classes)
        self.first, self.second = nn.Conv2d(channels, out, 3, 1, 1), nn.Conv2d(out, out, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Return `(B, out, 2 h, 2 w)` of `(B, channels, h, w)`."""
        h = functional.interpolate(self.first_norm(x, labels).relu(), scale_factor=2.0)
        h = self.second(self.second_norm(self.first(h), labels).relu())
        total: Tensor = h + self.shortcut(functional.interpolate(x, scale_factor=2.0))
        return total


class Down(nn.Module):
    """A residual block of the discriminator, which may halve the size by averaging.

    The first of a network does not begin with ReLU, since it sees the image.
    """

    def __init__(self, channels: int, out: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve, self.begins = halve, first
        self.first, self.second = nn.Conv2d(channels, out, 3, 1, 1), nn.Conv2d(out, out, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels, out, 1) if halve or channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, h, w)`, or half of each, of `(B, channels, h, w)`."""
        h = self.second(self.first(x if self.begins else x.relu()).relu())
        total: Tensor = h + self.shortcut(x)
        return functional.avg_pool2d(total, 2) if self.halve else total


def resnet(
    *, size: int, channels: int = 3, classes: int = 0, width: int = 64, latent: int = 128, head: int = 0
) -> Backbone:
    """Return both players of Miyato et al. 2018, tables 4 to 6, https://arxiv.org/abs/1802.05957.

    Up to 32 pixels all blocks have the same width, as in table 4; above it is doubled with each halving, at most three
    times. The discriminator halves the size twice (up to 32 pixels) or down to 4 x 4, ends with blocks that keep it,
    and sums over positions.

    Deviations: widths of sizes that the paper does not have follow the rule above.

    Args:
        size: of the images, 16, 32, 64 or 128.
        channels: of the images, >= 1.
        classes: 0 for unconditional players; else conditional batch norm and a projection.
        width: channels at full size; the paper's generator has 256 and its discriminator 128 for 32 pixels.
        latent: Z.
        head: width of a hidden layer in the discriminator's head; 0: none.

    Raises:
        ValueError: a value breaks its rule.
    """
    n = doublings(size)
    whole("width", width, 1)
    wide = [width] * (n + 1) if size <= 32 else [*widths(size, width), min(width * 2**n, 8 * width)]
    up = list(reversed(wide))
    blocks: list[nn.Module] = [Up(up[i], up[i + 1], classes) for i in range(n)]
    blocks.append(Normed(up[-1], classes))
    last = nn.Conv2d(up[-1], channels, 3, 1, 1)
    generator = Generator(latent, up[0], blocks, last, (channels, size, size), classes)
    _xavier(generator)
    halvings = 2 if size <= 32 else n
    down = [channels, *wide[1 : halvings + 1]]
    stages = [Down(down[i], down[i + 1], halve=True, first=i == 0) for i in range(halvings)]
    kept = 2 if size <= 32 else 1
    stages += [Down(down[-1], down[-1], halve=False) for _ in range(kept)]
    body = nn.Sequential(*stages[:-1], nn.Sequential(stages[-1], nn.ReLU()))
    discriminator = Discriminator(body, Head(down[-1], classes, pool=True, hidden=head))
    _xavier(discriminator)
    normalise(discriminator)
    return Backbone(generator, discriminator)


def _xavier(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
