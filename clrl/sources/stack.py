"""Several batches as one, so that the encoder is called once."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

Batch = Tensor | dict[str, Tensor]


def stack(batches: Sequence[Batch]) -> Batch:
    """Join batches along their first axis, leaf by leaf."""
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.cat(cast(list[Tensor], list(batches)))
    return {name: torch.cat([cast(dict[str, Tensor], batch)[name] for batch in batches]) for name in first}
