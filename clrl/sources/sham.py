"""Pairs whose positives mean nothing: the control arm that an auxiliary has to beat."""

import torch
from torch import Tensor

from ...core.pairs import Pairs
from ..stores import Window
from .observation_pairs import ObservationPairs


class ShamPairs(ObservationPairs):
    """:class:`ObservationPairs` in which every query is paired with the key of another window.

    Everything else is as in the true arm: the same windows are drawn, both ends are encoded, as many gradients flow.
    Windows are drawn independently, so that turning the keys by one row makes each positive a random observation, and
    never (but for a window drawn twice) the true one. What such an arm gains or loses is owed to the extra gradient,
    not to what the pairs say.

    In an experiment: `sham: ["objective.source._target_=contraux.clrl.sources.ShamPairs"]`.
    """

    def forward(self, window: Window, generator: torch.Generator) -> Pairs:
        """`(N, D)` queries and keys; row n of the keys belongs to the window of query n - 1."""
        pairs = super().forward(window, generator)
        return pairs._replace(key=pairs.key.roll(1, dims=0))

    def pairs_with(self, query: Tensor, seen: Tensor | dict[str, Tensor], generator: torch.Generator) -> Pairs:
        """The same of features that the host has made already."""
        pairs = super().pairs_with(query, seen, generator)
        return pairs._replace(key=pairs.key.roll(1, dims=0))
