"""Several views, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .protocol import View


@dataclass(frozen=True)
class Chain:
    """Views in turn, for example `Chain([RandomShift(4), Intensity(0.05)])`: each sees what the one before made.

    Args:
        views: at least one.

    Raises:
        ValueError: there is none.
    """

    views: Sequence[View]

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(self.views))
        if not self.views:
            raise ValueError("Chain needs at least one view, got none")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return `x` through all views."""
        for view in self.views:
            x = view(x, generator)
        return x
