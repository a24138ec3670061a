"""SNDCGAN: the plain convolutional players of spectral normalisation."""

from itertools import pairwise

from torch import Tensor, nn

from .dcgan import Doubled, normalise
from .parts import ConditionalBatchNorm, normal_weights, widths
from .players import Backbone, Discriminator, Generator, Head

SLOPE = 0.1


class Normed(nn.Module):
    """(Conditional) batch norm and ReLU, ahead of the last convolution."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = ConditionalBatchNorm(channels, classes)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Return the shape it gets."""
        return self.norm(x, labels).relu()


def sndcgan(
    *, size: int, channels: int = 3, classes: int = 0, width: int = 64, latent: int = 128, head: int = 0
) -> Backbone:
    """Return both players of Miyato et al. 2018, table 3, https://arxiv.org/abs/1802.05957.

    The discriminator alternates 3 x 3 convolutions with 4 x 4 ones of stride 2, all spectrally normalised and without
    batch norm, down to 4 x 4; the generator is a linear layer, transposed convolutions and a last 3 x 3 convolution.

    Deviations: sizes 16 to 128, the paper's are 32 and 48; with classes conditional batch norm and a projection, whose
    embedding is normalised too.

    Args:
        size: of the images, 16, 32, 64 or 128.
        channels: of the images, >= 1.
        classes: 0 for unconditional players.
        width: channels at full size, doubled with each halving, at most three times.
        latent: Z.
        head: width of a hidden layer in the discriminator's head; 0: none.

    Raises:
        ValueError: a value breaks its rule.
    """
    wide = widths(size, width)
    down = [*wide, min(2 * wide[-1], 8 * width)]
    up = list(reversed(down))
    blocks: list[nn.Module] = [Doubled(up[i], up[i + 1], classes) for i in range(len(wide))]
    blocks.append(Normed(up[-1], classes))
    last = nn.Conv2d(up[-1], channels, 3, 1, 1)
    generator = Generator(latent, up[0], blocks, last, (channels, size, size), classes)
    normal_weights(generator)
    body = nn.Sequential()
    before = channels
    for here, below in pairwise(down):
        body.append(_stage(nn.Conv2d(before, here, 3, 1, 1), nn.Conv2d(here, below, 4, 2, 1)))
        before = below
    body.append(_stage(nn.Conv2d(before, before, 3, 1, 1)))
    discriminator = Discriminator(body, Head(before * 16, classes, hidden=head))
    normal_weights(discriminator)
    normalise(discriminator)
    return Backbone(generator, discriminator)


def _stage(*convolutions: nn.Conv2d) -> nn.Sequential:
    stage = nn.Sequential()
    for convolution in convolutions:
        stage.append(convolution).append(nn.LeakyReLU(SLOPE))
    return stage
