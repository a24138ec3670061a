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

    A few rounds of rejection serve the usual case, in which most candidates are valid; the exhaustive search that
    follows is exact, and returns None where nothing is valid.
    """
    kept = np.empty(0, dtype=np.int64)
    for _ in range(4):
        candidates = torch.randint(limit, (size + size // 4 + 8,), generator=generator).numpy()
        kept = np.concatenate([kept, candidates[valid(candidates)]])
        if len(kept) >= size:
            return kept[:size]
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
