"""What the seam asks of a source."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from ...core.pairs import Pairs
from ..stores import Window


class Source(Protocol):
    """Turns windows into :class:`~contraux.core.pairs.Pairs`; an `nn.Module` that does not own the encoder."""

    horizon: int
    """How many steps beyond the first a window must hold."""

    sizes: Mapping[str, int]
    """What an objective must know of the pairs besides the dimension of queries, as keyword arguments: `action_dim`
    where `Pairs.context` has actions, `local_dim` where keys are vectors of a feature map."""

    def __call__(self, window: Window, generator: torch.Generator) -> Pairs:
        """Encode the window's observations; gradient flows into the host's encoder through `Pairs.query`."""
        ...

    def update(self) -> None:
        """Move what follows the encoder without a gradient. Called once for each auxiliary update."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The momentum copy, if there is one."""
        ...
