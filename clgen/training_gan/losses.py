"""What the players of a GAN play for: pure functions of scores. Shape legend: B images."""

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus


def non_saturating_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss of Goodfellow et al. 2014, eq. 1, https://arxiv.org/abs/1406.2661.

        mean softplus(-real) + mean softplus(fake)

    Args:
        real: scores `(B,)` of real images, which are logits.
        fake: scores of generated ones.

    Returns:
        A scalar > 0; 2 log 2 for a discriminator that knows nothing.
    """
    return softplus(-real).mean() + softplus(fake).mean()


def non_saturating_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Return `mean softplus(-fake)`, the generator's loss of Goodfellow et al. 2014, section 3, that does not saturate.

    Args:
        real: has no part in it.
        fake: scores `(B,)`.
    """
    return softplus(-fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return `mean relu(1 - real) + mean relu(1 + fake)` (Miyato et al. 2018, eq. 16); https://arxiv.org/abs/1802.05957.

    Args:
        real: scores `(B,)` of real images.
        fake: scores of generated ones.
    """
    return relu(1 - real).mean() + relu(1 + fake).mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return `mean fake - mean real`, the critic's loss of Arjovsky et al. 2017, algorithm 1.

    https://arxiv.org/abs/1701.07875. It has no lower bound without a gradient penalty.

    Args:
        real: scores `(B,)` of real images.
        fake: scores of generated ones.
    """
    return fake.mean() - real.mean()


def linear_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Return `-mean fake`, the generator's loss of Wasserstein and hinge GANs.

    Args:
        real: has no part in it.
        fake: scores `(B,)`.
    """
    return -fake.mean()


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return `mean (real - 1)^2 / 2 + mean fake^2 / 2` (Mao et al. 2017, eq. 9); https://arxiv.org/abs/1611.04076.

    Args:
        real: scores `(B,)` of real images.
        fake: scores of generated ones.
    """
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def least_squares_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Return `mean (fake - 1)^2 / 2` (Mao et al. 2017, eq. 9).

    Args:
        real: has no part in it.
        fake: scores `(B,)`.
    """
    return (fake - 1).square().mean() / 2


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return `mean softplus(fake - real)`: each real image against one fake.

    RpGAN, Jolicoeur-Martineau 2018, section 4.1 (https://arxiv.org/abs/1807.00734), the loss of R3GAN (Huang et al.
    2024, eq. 2; https://arxiv.org/abs/2501.05441).

    Args:
        real: scores `(B,)` of real images.
        fake: scores of generated ones, as many.
    """
    return softplus(fake - real).mean()


def relativistic_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Return `mean softplus(real - fake)`, as `relativistic_discriminator` the other way round.

    Args:
        real: scores `(B,)` of real images.
        fake: scores of generated ones, as many.

    Raises:
        ValueError: no real scores.
    """
    if real is None:
        raise ValueError("the relativistic loss of the generator needs the scores of real images, got None")
    return softplus(real - fake).mean()


def accuracy(real: Tensor, fake: Tensor) -> Tensor:
    """Return the share of pairs `(real, fake)` of which the real one has the higher score, in [0, 1]."""
    return (real > fake).float().mean(dtype=torch.float32)
