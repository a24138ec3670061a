"""Episodic novelty by nearest neighbours: an observation far from all others of its episode is new.

Shape legend: E environments, M remembered steps, K neighbours, D embedding dimension.
"""

import numpy as np
import torch
from torch import Tensor

from ...core.check import number, whole
from .bonus import EpisodeMemory, Host


class EpisodicKNN(EpisodeMemory):
    """The episodic reward of Never Give Up (Badia et al. 2020, https://arxiv.org/abs/2002.06038, equation 2).

        r = 1 / s where s <= maximum_similarity, else 0,    s = sqrt(sum_k kernel(x_k)) + c
        kernel(x) = epsilon / (x + epsilon),    x_k = max(d_k^2 / d_mean^2 - cluster_distance, 0)

    `d_k` are the Euclidean distances to the `k` nearest embeddings of the same episode, its first observation
    included, or to all while there are fewer; `d_mean^2` is a running mean of the squared ones over all environments,
    which makes the reward independent of the embedding's scale.

    Deviations: the running mean forgets (an exponential average, since the embedding is learnt meanwhile); no lifelong
    factor alpha; the embedding is the agent's own, not that of an inverse model.

    Args:
        host: what the bonus is built for.
        k: neighbours, an integer >= 1.
        epsilon: of the kernel, > 0.
        cluster_distance: normalised squared distances below this count as a visit to the same place, >= 0.
        c: pseudo-count constant, > 0: the reward is at most 1 / c.
        maximum_similarity: above it the reward is 0.
        capacity: steps of an episode that are remembered; the oldest are overwritten.
        momentum: of the running mean of squared distances, in [0, 1).
    """

    mean_square: Tensor
    weight: Tensor

    def __init__(
        self,
        host: Host,
        *,
        k: int = 10,
        epsilon: float = 1e-4,
        cluster_distance: float = 0.008,
        c: float = 1e-3,
        maximum_similarity: float = 8.0,
        capacity: int = 5_000,
        momentum: float = 0.99,
    ):
        super().__init__()
        self.k, self.capacity = whole("k", k, 1), whole("capacity", capacity, 1)
        self.epsilon, self.c = number("epsilon", epsilon, 0.0, above=True), number("c", c, 0.0, above=True)
        self.cluster_distance = number("cluster_distance", cluster_distance, 0.0)
        self.maximum_similarity = number("maximum_similarity", maximum_similarity, 0.0, above=True)
        self.momentum = number("momentum", momentum, 0.0, 1.0, below=True)
        self.count = np.zeros(host.n_envs, dtype=np.int64)  # steps of the running episode; not on the device
        self._memory_EMD = torch.empty(host.n_envs, 0, host.dim, device=host.device)
        self._envs = torch.arange(host.n_envs, device=host.device)
        # An exponential average is a sum over a weight: mean_square / weight needs no first value.
        self.register_buffer("mean_square", torch.zeros((), device=host.device))
        self.register_buffer("weight", torch.zeros((), device=host.device))

    def begin(self, envs: np.ndarray, first: Tensor) -> None:
        """Forget the episodes of the environments in the mask `(E,)`, and remember the first embeddings `(n, D)`."""
        self.count[envs] = 0
        chosen = np.flatnonzero(envs)
        self._remember(chosen, torch.as_tensor(chosen, device=self._envs.device), first)

    def score(self, z_ED: Tensor) -> Tensor:
        """`(E,)` rewards in [0, 1 / c]; every environment must have begun an episode."""
        filled = np.minimum(self.count, self.capacity)
        most = int(filled.max())
        memory_EMD = self._memory_EMD[:, :most]
        square_EM = torch.cdist(z_ED[:, None], memory_EMD, compute_mode="donot_use_mm_for_euclid_dist")[:, 0].square()
        if int(filled.min()) < most:
            known_EM = torch.as_tensor(np.arange(most) < filled[:, None], device=z_ED.device)
            square_EM = square_EM.masked_fill(~known_EM, torch.inf)
        nearest_EK = square_EM.topk(min(self.k, most), largest=False).values
        similarity_E = self._kernel(nearest_EK, int(np.minimum(filled, self.k).sum())).sum(1).sqrt() + self.c
        self._remember(np.arange(len(filled)), self._envs, z_ED)
        return torch.where(similarity_E > self.maximum_similarity, 0.0, 1 / similarity_E)

    def metrics(self) -> dict[str, float]:
        """`neighbour_distance`: root of the running mean of squared distances to neighbours."""
        return {"neighbour_distance": float((self.mean_square / self.weight.clamp_min(1e-12)).sqrt())}

    def _kernel(self, nearest_EK: Tensor, n_known: int) -> Tensor:
        """Equation 3 with the running mean moved first; neighbours that do not exist are infinitely far, so 0."""
        mean = nearest_EK.masked_fill(nearest_EK.isinf(), 0.0).sum() / n_known
        self.mean_square.mul_(self.momentum).add_(mean, alpha=1 - self.momentum)
        self.weight.mul_(self.momentum).add_(1 - self.momentum)
        normalised = nearest_EK / (self.mean_square / self.weight).clamp_min(1e-12)
        return self.epsilon / ((normalised - self.cluster_distance).clamp_min(0.0) + self.epsilon)

    def _remember(self, envs: np.ndarray, index: Tensor, z_ND: Tensor) -> None:
        row = self.count[envs] % self.capacity
        n_envs, length, dim = self._memory_EMD.shape
        if len(row) and int(row.max()) >= length:
            grown = self._memory_EMD.new_zeros(n_envs, min(max(2 * length, 64), self.capacity), dim)
            grown[:, :length] = self._memory_EMD
            self._memory_EMD = grown
        self._memory_EMD[index, torch.as_tensor(row, device=index.device)] = z_ND.to(self._memory_EMD.dtype)
        self.count[envs] += 1
