"""Energies of a state-action and a goal: how likely the goal lies in the future. Shape legend: N rows, D dimension."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...core.check import choice
from ...core.similarity import Bilinear, cosine, dot, negative_euclidean

Energy = Callable[[Tensor, Tensor], Tensor]
"""`(N, D), (M, D) -> (N, M)`, larger is likelier."""

ENERGIES = ("bilinear", "cosine", "dot", "l2", "l2_squared")


def make_energy(name: str, dim: int) -> Energy:
    """Return an energy of `dim`-dimensional representations by the name it has in the papers.

    `dot` is phi·psi (Eysenbach et al. 2022), `cosine` is phi·psi / (|phi| |psi|), `l2` is -|phi - psi| and `l2_squared`
    its square with the sign kept (Bortkiewicz et al. 2024), `bilinear` is phi^T W psi with a learned W.

    Raises:
        ValueError: another name.
    """
    energies: dict[str, Energy] = {
        "cosine": cosine,
        "dot": dot,
        "l2": negative_euclidean,
        "l2_squared": partial(negative_euclidean, squared=True),
    }
    return Bilinear(dim) if choice("energy", name, ENERGIES) == "bilinear" else energies[name]


def of_rows(energy: Energy, first: Tensor, second: Tensor) -> Tensor:
    """Return the `(N,)` energies of each row with its own partner: the diagonal, without the other N^2 - N.

    Args:
        energy: of every row with every row.
        first: `(N, D)`.
        second: `(N, D)`.
    """

    def one(a: Tensor, b: Tensor) -> Tensor:
        return energy(a.unsqueeze(0), b.unsqueeze(0)).squeeze()

    rows: Any = torch.vmap(one)(first, second)
    return rows
