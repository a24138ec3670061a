"""What the seam asks of a source."""

from typing import Protocol

import torch
from torch import Tensor

from ...core.pairs import Pairs
from ..stores import Window


class Source(Protocol):
    """Turns windows into :class:`~contraux.core.pairs.Pairs`; an `nn.Module` that does not own the encoder."""

    horizon: int
    """How many steps beyond the first a window must hold."""

    def __call__(self, window: Window, generator: torch.Generator) -> Pairs:
        """Encode the window's observations; gradient flows into the host's encoder through `Pairs.query`."""
        ...

    def update(self) -> None:
        """Move what follows the encoder without a gradient. Called once for each auxiliary update."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The momentum copy, if there is one."""
        ...
