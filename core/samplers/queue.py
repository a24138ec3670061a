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
    `key_label`, labels are remembered with the keys; keys that came without have label -1. So is `key_guide`, features
    by which `CancelByGuide` cancels, if their dimension is given; zeros stand for keys that came without.

    Args:
        dim: dimension D of the keys that are compared (what the projection puts out).
        size: keys remembered at most.
        guide_dim: dimension of `key_guide`; None remembers none.

    Raises:
        ValueError: a size is not a whole number >= 1.
    """

    keys: Tensor
    labels: Tensor
    guides: Tensor

    def __init__(self, dim: int, size: int, guide_dim: int | None = None) -> None:
        super().__init__()
        self.dim = whole("dim of Queue", dim, 1)
        self.size = whole("size of Queue", size, 1)
        self.register_buffer("keys", torch.zeros(self.size, self.dim))
        self.register_buffer("labels", torch.full((self.size,), -1))
        self.guide_dim = None if guide_dim is None else whole("guide_dim of Queue", guide_dim, 1)
        if guide_dim is not None:
            self.register_buffer("guides", torch.zeros(self.size, guide_dim))
        # Plain integers, so that using them never waits for a GPU; they travel in the extra state.
        self._next = 0
        self._filled = 0

    def __len__(self) -> int:
        """Return how many keys are remembered now."""
        return self._filled

    def memory(self) -> Memory | None:
        """Return the Q remembered keys with what is known of them, or None before there is one; in no order.

        Views of the buffers, valid until the next `remember`.
        """
        if not self._filled:
            return None
        filled = slice(0, self._filled)
        context = {"key_label": self.labels[filled]}
        if self.guide_dim is not None:
            context["key_guide"] = self.guides[filled]
        return Memory(self.keys[filled], context)

    @torch.no_grad()
    def remember(self, key: Tensor, context: Mapping[str, Tensor]) -> None:
        """Store the keys, oldest first; only in training mode.

        Raises:
            ValueError: the keys or their guides do not have the queue's dimension.
        """
        if key.ndim != 2 or key.shape[1] != self.dim:
            raise ValueError(
                f"a queue of dimension {self.dim} needs keys (M, {self.dim}), got {shape(key)}; give Queue the "
                "dimension that the projection puts out"
            )
        if not self.training:
            return
        guides = context.get("key_guide") if self.guide_dim is not None else None
        if guides is not None and guides.shape != (len(key), self.guide_dim):
            raise ValueError(f"key_guide must be ({len(key)}, {self.guide_dim}) for this queue, got {shape(guides)}")
        count = min(len(key), self.size)
        old = len(key) - count
        split = old + min(count, self.size - self._next)
        for start, rows in ((self._next, slice(old, split)), (0, slice(split, len(key)))):
            place = slice(start, start + rows.stop - rows.start)
            _write(self.keys[place], key, rows)
            _write(self.labels[place], context.get("key_label"), rows, unknown=-1)
            if self.guide_dim is not None:
                _write(self.guides[place], guides, rows)
        self._next = (self._next + count) % self.size
        self._filled = min(self._filled + count, self.size)

    def get_extra_state(self) -> Tensor:
        """Return where the next key goes and how many there are, as a `(2,)` long tensor for `state_dict`."""
        return torch.tensor([self._next, self._filled])

    def set_extra_state(self, state: Tensor) -> None:
        """Take back what `get_extra_state` returned."""
        self._next, self._filled = state.tolist()


def _write(place: Tensor, values: Tensor | None, rows: slice, unknown: int = 0) -> None:
    """Write those rows of the values into their place, or `unknown` where there are no values."""
    if values is None:
        place.fill_(unknown)
    else:
        place.copy_(values[rows])
