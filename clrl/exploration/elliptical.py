"""Elliptical episodic novelty: an observation is new in directions its episode has not been to.

Shape legend: E environments, D embedding dimension.
"""

import numpy as np
import torch
from torch import Tensor

from ...core.check import number
from .bonus import EpisodeMemory, Host


class Elliptical(EpisodeMemory):
    """The bonus of E3B (Henaff et al. 2022, https://arxiv.org/abs/2210.05805, section 3.1).

        b_t = z_t^T C_{t-1}^{-1} z_t,    C_{t-1} = ridge I + sum_{i < t} z_i z_i^T,

    with `z_i` the embeddings of the same episode, its first observation included. The inverse is kept, in float64, and
    follows each step by the identity of Sherman and Morrison, `O(D^2)` per environment:

        C_t^{-1} = C_{t-1}^{-1} - u u^T / (1 + b_t),    u = C_{t-1}^{-1} z_t.

    Deviation: the embedding is the agent's own, not that of an inverse model.

    Args:
        host: what the bonus is built for.
        ridge: > 0; the paper's lambda. The first embedding of norm 1 is worth 1 / ridge.
    """

    def __init__(self, host: Host, *, ridge: float = 0.1):
        super().__init__()
        self.ridge = number("ridge", ridge, 0.0, above=True)
        dtype = torch.float32 if host.device.type == "mps" else torch.float64
        self._eye = torch.eye(host.dim, device=host.device, dtype=dtype) / self.ridge
        self.inverse_EDD = self._eye.repeat(host.n_envs, 1, 1)

    def begin(self, envs: np.ndarray, first: Tensor) -> None:
        """Forget the episodes of the environments in the mask `(E,)`, and remember the first embeddings `(n, D)`."""
        chosen = torch.as_tensor(np.flatnonzero(envs), device=self._eye.device)
        inverse = self._eye.repeat(len(chosen), 1, 1)
        _remember(inverse, first.to(inverse.dtype))
        self.inverse_EDD[chosen] = inverse

    def score(self, z_ED: Tensor) -> Tensor:
        """`(E,)` bonuses in [0, |z|^2 / ridge]."""
        return _remember(self.inverse_EDD, z_ED.to(self.inverse_EDD.dtype)).to(z_ED.dtype)


def _remember(inverse_EDD: Tensor, z_ED: Tensor) -> Tensor:
    """Add `z z^T` to the matrices whose inverses these are, in place; return `z^T C^{-1} z` from before."""
    u_ED1 = inverse_EDD @ z_ED[:, :, None]
    bonus_E = (z_ED[:, None] @ u_ED1)[:, 0, 0].clamp_min(0.0)
    inverse_EDD.baddbmm_(u_ED1, u_ED1.mT / (1 + bonus_E)[:, None, None], alpha=-1)
    return bonus_E
