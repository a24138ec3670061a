"""DCGAN: strided convolutions and batch norm in both players."""

from torch import Tensor, nn

from .parts import LEAK, ConditionalBatchNorm, normal_weights, spectral, widths
from .players import Backbone, Discriminator, Generator, Head


class Doubled(nn.Module):
    """Batch norm, ReLU and a transposed convolution that doubles the size."""

    def __init__(self, channels: int, out: int, classes: int) -> None:
        super().__init__()
        self.norm = ConditionalBatchNorm(channels, classes)
        self.grow = nn.ConvTranspose2d(channels, out, 4, 2, 1)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Return `(B, out, 2 h, 2 w)` of `(B, channels, h, w)`."""
        grown: Tensor = self.grow(self.norm(x, labels).relu())
        return grown


def dcgan(
    *, size: int, channels: int = 3, classes: int = 0, width: int = 64, latent: int = 100, head: int = 0,
    spectral_norm: bool = False,
) -> Backbone:  # fmt: skip
    """Return both players of Radford et al. 2016, figure 1 and section 3, https://arxiv.org/abs/1511.06434.

    The generator is a linear layer and transposed convolutions, the discriminator convolutions of stride 2, down to
    4 x 4; both with batch norm, which the discriminator's first layer goes without.

    Deviations: sizes 16 to 128, the paper's is 64; with classes the generator's batch norm is conditional and the
    discriminator's head has a projection.

    Args:
        size: of the images, 16, 32, 64 or 128.
        channels: of the images, >= 1.
        classes: 0 for unconditional players.
        width: channels of the widest resolution, doubled with each halving, at most three times.
        latent: Z.
        head: width of a hidden layer in the discriminator's head; 0: none.
        spectral_norm: in the discriminator, in the place of batch norm.

    Raises:
        ValueError: a value breaks its rule.
    """
    wide = widths(size, width)
    up = [*reversed(wide), channels]
    blocks = [Doubled(up[i], up[i + 1], classes) for i in range(len(wide))]
    generator = Generator(latent, up[0], blocks, nn.Identity(), (channels, size, size), classes)
    normal_weights(generator)
    body = nn.Sequential()
    for i, (before, after) in enumerate(zip([channels, *wide], wide, strict=False)):
        convolution = nn.Conv2d(before, after, 4, 2, 1)
        stage = nn.Sequential(convolution)
        if i and not spectral_norm:
            stage.append(nn.BatchNorm2d(after))
        body.append(stage.append(nn.LeakyReLU(LEAK)))
    discriminator = Discriminator(body, Head(wide[-1] * 16, classes, hidden=head))
    normal_weights(discriminator)
    if spectral_norm:
        normalise(discriminator)
    return Backbone(generator, discriminator)


def normalise(module: nn.Module) -> None:
    """Put spectral norm on every convolution, linear layer and embedding of a module."""
    for part in list(module.modules()):
        if isinstance(part, nn.Conv2d | nn.Linear | nn.Embedding):
            spectral(part)
