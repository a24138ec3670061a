"""A random subset of the negatives. Shape legend: N queries, M candidates."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..check import number, whole
from .hardest import hardest
from .weighting import Weighting

_LOW64 = 2**64 - 1


def mix(seed: int, call: int) -> int:
    """Return a seed in [0, 2^63) for one call of many (the finaliser of SplitMix64: near inputs, far outputs)."""
    x = (seed * 0x9E3779B97F4A7C15 + call + 1) * 0x9E3779B97F4A7C15 & _LOW64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _LOW64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _LOW64
    return (x ^ (x >> 31)) >> 1


def noise(like: Tensor, seed: int) -> Tensor:
    """Return float32 numbers in [0, 1) of the shape and on the device of `like`, from a generator of their own."""
    device = "cpu" if like.is_meta else like.device
    generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(like.shape, device=like.device, generator=generator)


class Random(Weighting):
    """Each query keeps a random subset of its negatives, afresh in every call.

    What is kept weighs 1 and the rest 0: the loss is that of a smaller batch and is not rescaled to the size of the
    whole one. Draws depend on the seed and the number of the call alone (and on the kind of device), leave torch's own
    random state as it is, and go on where they stopped from a `state_dict`. In evaluation the number stays, so that the
    draws of training go on as if there had been none.

    Unlike for other samplers, a query's subset depends on the call it is in: blocks of rows draw other subsets than
    the whole matrix, of the same distribution.

    Args:
        count: negatives kept for each query, >= 1, or all where it has at most so many; None: by `share`.
        share: in (0, 1], probability with which each negative is kept, so that their number varies and may be 0;
            None: by `count`.
        seed: of the draws, >= 0.

    Raises:
        ValueError: not exactly one of count and share is given, or a number out of range.
    """

    def __init__(self, count: int | None = None, share: float | None = None, seed: int = 0) -> None:
        super().__init__()
        if (count is None) == (share is None):
            raise ValueError(f"Random needs either count or share, got count={count} and share={share}")
        self.count = None if count is None else whole("count of Random", count, 1)
        self.share = 1.0 if share is None else number("share of Random", share, 0.0, 1.0, above=True)
        self.seed = whole("seed of Random", seed)
        self._calls = 0  # a plain integer, so that it is never read from a GPU; it travels in the extra state

    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return a subset drawn for this call."""
        drawn = noise(similarity, mix(self.seed, self._calls))
        if self.training:
            self._calls += 1
        return drawn < self.share if self.count is None else hardest(drawn, negative, self.count)

    def get_extra_state(self) -> Tensor:
        """Return the number of calls so far, as a `(1,)` long tensor for `state_dict`."""
        return torch.tensor([self._calls])

    def set_extra_state(self, state: Tensor) -> None:
        """Take back what `get_extra_state` returned."""
        (self._calls,) = state.tolist()
