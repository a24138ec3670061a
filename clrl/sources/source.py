"""What the seam asks of a source."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from ...core.pairs import Pairs
from ..stores import Window


class Source(Protocol):
    """Turns windows into :class:`~contraux.core.pairs.Pairs`; an `nn.Module` that does not own the encoder.

    One whose pairs are views of one observation may also have `pairs_with`, as :class:`ObservationPairs` has, and so
    share the host's own pass through the encoder (`mode="shared"`).
    """

    horizon: int
    """How many steps beyond the first a window must hold."""

    sizes: Mapping[str, int | tuple[int, ...]]
    """What an objective may need to know of the pairs besides the dimension of queries, as keyword arguments:
    `action_dim` and `action_choices` (the sizes of the one-hot blocks in the code of an action, none where it holds
    values) where `Pairs.context` has actions, `steps` where there may be keys of several steps ahead, `local_dim` where
    keys are vectors of a feature map."""

    def __call__(self, window: Window, generator: torch.Generator) -> Pairs:
        """Encode the window's observations; gradient flows into the host's encoder through `Pairs.query`."""
        ...

    def update(self) -> None:
        """Move what follows the encoder without a gradient. Called once for each auxiliary update."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The momentum copy, if there is one."""
        ...
