"""A first-in-first-out memory of keys. Shape legend: M keys of the batch, Q remembered, D dimension."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..check import shape, whole
from .in_batch import InBatch
from .protocol import Memory


class Queue(InBatch):
    """The keys of the batch and the last `size` keys before it as negatives (He et al. 2020, MoCo, algorithm 1).

    In training mode each batch of keys is stored, without gradient, after it was compared with; the oldest fall out.
    A batch larger than the queue leaves its newest `size` keys. https://arxiv.org/abs/1911.05722

    Deviations: the queue begins empty instead of full of random vectors, and only columns that were filled are used;
    the other keys of the batch are negatives too; sizes need not be a multiple of the batch. Where the context holds
    `key_label`, labels are remembered with the keys; keys that came without have label -1.

    Args:
        dim: dimension D of the keys that are compared (what the projection puts out).
        size: keys remembered at most.

    Raises:
        ValueError: dim or size is not a whole number >= 1.
    """

    keys: Tensor
    labels: Tensor

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.dim = whole("dim of Queue", dim, 1)
        self.size = whole("size of Queue", size, 1)
        self.register_buffer("keys", torch.zeros(self.size, self.dim))
        self.register_buffer("labels", torch.full((self.size,), -1))
        # Plain integers, so that using them never waits for a GPU; they travel in the extra state.
        self._next = 0
        self._filled = 0

    def __len__(self) -> int:
        """Return how many keys are remembered now."""
        return self._filled

    def memory(self) -> Memory | None:
        """Return the Q remembered keys and their `key_label`, or None before there is one; their order means nothing.

        It is a view of the buffer, valid until the next `remember`.
        """
        if not self._filled:
            return None
        return Memory(self.keys[: self._filled], {"key_label": self.labels[: self._filled]})

    @torch.no_grad()
    def remember(self, key: Tensor, context: Mapping[str, Tensor]) -> None:
        """Store the keys, oldest first; only in training mode.

        Raises:
            ValueError: the keys do not have the queue's dimension.
        """
        if key.ndim != 2 or key.shape[1] != self.dim:
            raise ValueError(
                f"a queue of dimension {self.dim} needs keys (M, {self.dim}), got {shape(key)}; give Queue the "
                "dimension that the projection puts out"
            )
        if not self.training:
            return
        labels = context.get("key_label")
        newest = key[-self.size :]
        count = newest.shape[0]
        first = min(count, self.size - self._next)
        for start, rows in ((self._next, slice(0, first)), (0, slice(first, count))):
            place = slice(start, start + rows.stop - rows.start)
            self.keys[place].copy_(newest[rows])
            if labels is None:
                self.labels[place].fill_(-1)
            else:
                self.labels[place].copy_(labels[-self.size :][rows])
        self._next = (self._next + count) % self.size
        self._filled = min(self._filled + count, self.size)

    def get_extra_state(self) -> Tensor:
        """Return where the next key goes and how many there are, as a `(2,)` long tensor for `state_dict`."""
        return torch.tensor([self._next, self._filled])

    def set_extra_state(self, state: Tensor) -> None:
        """Take back what `get_extra_state` returned."""
        self._next, self._filled = state.tolist()
