"""What the critic is trained on: classify which goal came from the future of which state-action.

Every loss takes `(N, N)` energies of N state-actions with N goals, of which the diagonal is true: goal i is a state
that followed state-action i. Shape legend: N pairs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ...core.check import choice
from ...core.losses import info_nce, sig_lip

ContrastiveLoss = Callable[[Tensor], Tensor]
"""`(N, N)` energies -> scalar."""

LOSSES = ("backward", "binary", "forward", "symmetric")


def contrastive_loss(name: str) -> ContrastiveLoss:
    """Return a loss by its name.

    Raises:
        ValueError: another name than `forward`, `backward`, `symmetric` or `binary`.
    """
    losses: dict[str, ContrastiveLoss] = {
        "forward": forward_info_nce,
        "backward": backward_info_nce,
        "symmetric": symmetric_info_nce,
        "binary": binary_nce,
    }
    return losses[choice("loss", name, LOSSES)]


def forward_info_nce(energies_NN: Tensor) -> Tensor:
    """Return the cross-entropy of picking a state-action's goal among all goals.

        L = -1/N sum_i log( e^{f_ii} / sum_j e^{f_ij} )

    (Bortkiewicz et al. 2024, https://arxiv.org/abs/2408.11052.) Whatever depends on the state-action alone can
    be added to f without a change in L: use :func:`logsumexp_penalty` beside it.
    """
    return info_nce(energies_NN, _true(energies_NN), temperature=1.0)


def backward_info_nce(energies_NN: Tensor) -> Tensor:
    """Return the cross-entropy of picking a goal's state-action among all: :func:`forward_info_nce` of the transpose.

    Whatever depends on the goal alone can be added to f without a change.
    """
    return info_nce(energies_NN.T, _true(energies_NN), temperature=1.0)


def symmetric_info_nce(energies_NN: Tensor) -> Tensor:
    """Return forward plus backward InfoNCE: the sum, as Bortkiewicz et al. have it, and so twice the CLIP loss."""
    return forward_info_nce(energies_NN) + backward_info_nce(energies_NN)


def binary_nce(energies_NN: Tensor) -> Tensor:
    """Return the loss of telling true pairs from others one by one (NCE, Eysenbach et al. 2022).

        L = -1/N sum_i ( log sigmoid(f_ii) + 1/(N-1) sum_{j != i} log sigmoid(-f_ij) )

    True and other pairs have the same weight altogether, as in the equation, so that the best f is
    log p(g | s, a) - log p(g). https://arxiv.org/abs/2206.07568

    Deviation: the authors' code averages over all N^2 pairs, which lowers the best f by log(N - 1) everywhere.
    """
    weights = torch.full_like(energies_NN, 1 / max(len(energies_NN) - 1, 1))
    return sig_lip(energies_NN, _true(energies_NN), weights, temperature=1.0, bias=0.0)


def logsumexp_penalty(energies_NN: Tensor) -> Tensor:
    """Return 1/N sum_i (log sum_j e^{f_ij})^2, which keeps energies of a state-action near a common level.

    Without it forward InfoNCE leaves the level of f free for each state-action, and with it the actor's comparison of
    actions (Bortkiewicz et al. 2024).
    """
    return torch.logsumexp(energies_NN, dim=1).square().mean()


def _true(energies_NN: Tensor) -> Tensor:
    return torch.arange(len(energies_NN), device=energies_NN.device)
