"""What a source asks of a view."""

from typing import Protocol

import torch
from torch import Tensor


class View(Protocol):
    """A random transformation that draws from the given generator only, anew for each sample."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a view of each sample of the batch `x`, on its device.

        Views that move or add keep the dtype; `Intensity` makes uint8 float32 in the same units, and
        `ImageAugmentation` takes uint8 and returns normalised float32.
        """
        ...
