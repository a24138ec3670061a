"""What a store hands to a source: runs of consecutive observations that lie within one episode."""

from typing import Protocol

import numpy as np
import torch

Observations = dict[str, np.ndarray]
"""Raw observations by leaf of the observation space; a space that is not a Dict has the single leaf `""`."""


class Window(Protocol):
    """N runs of `horizon + 1` consecutive time steps, each within one episode."""

    def observation(self, offset: int) -> Observations:
        """Raw observations `(N, ...)` at time t + offset, 0 <= offset <= horizon."""
        ...

    def action(self, offset: int) -> np.ndarray:
        """Actions `(N, ...)` taken at time t + offset, 0 <= offset < horizon; a bounded Box is scaled to [-1, 1]."""
        ...

    def reward(self, offset: int) -> np.ndarray:
        """Rewards `(N,)` for these actions, as the host learns from them."""
        ...


class Store(Protocol):
    """Past observations to draw windows from."""

    def sample(self, size: int, horizon: int, generator: torch.Generator) -> Window | None:
        """Draw `size` windows uniformly, with replacement; None while fewer than `size` observations are stored.

        Raises:
            ValueError: episodes have ended and none of them was longer than `horizon`.
        """
        ...


def horizon_error(horizon: int, longest: int) -> ValueError:
    """The sentence for a window that no episode can hold."""
    return ValueError(
        f"k must be smaller than the number of steps in the episodes seen: got k={horizon}, while the longest of them "
        f"has {longest} steps; pass a smaller k (ContrastiveAuxiliary(..., k=...), objective.source.k=...)"
    )


def accept(size: int, limit: int, valid: "Acceptance", generator: torch.Generator) -> np.ndarray | None:
    """Draw `size` integers uniformly from those below `limit` for which `valid` holds, without listing them first.

    Rejection serves all but hopeless cases, each round as large as the rate of acceptance so far asks for; the
    exhaustive search that follows is exact, and returns None where nothing is valid.
    """
    kept, tried, draw = np.empty(0, dtype=np.int64), 0, size + size // 4 + 8
    for _ in range(5):
        candidates = torch.randint(limit, (draw,), generator=generator).numpy()
        kept, tried = np.concatenate([kept, candidates[valid(candidates)]]), tried + draw
        if len(kept) >= size:
            return kept[:size]
        draw = int(min((size - len(kept)) * 1.5 * tried / max(len(kept), 1) + 8, 64 * size))
    everything = np.arange(limit)
    everything = everything[valid(everything)]
    if not len(everything):
        return None
    return everything[torch.randint(len(everything), (size,), generator=generator).numpy()]


class Acceptance(Protocol):
    """Which candidate indices may be drawn."""

    def __call__(self, candidates: np.ndarray) -> np.ndarray:
        """`(n,)` integers -> `(n,)` bool."""
        ...
