"""Figures over seeds, and differences paired by seed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..paired import Difference
from ..paired import paired as paired_by_seed


class Figure(NamedTuple):
    """The values of one measure of one arm.

    Attributes:
        by_seed: the values.
        fixed: there is one value, the same for every seed: the encoder is one, and the measure draws nothing.
        half_widths: by seed, of the 95 % interval within a value, where one was drawn from episodes.
    """

    by_seed: Mapping[int, float]
    fixed: bool = False
    half_widths: Mapping[int, float] = {}

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(np.mean(list(self.by_seed.values())))

    @property
    def sd(self) -> float | None:
        """The standard deviation over seeds (n - 1); None for one value."""
        return float(np.std(list(self.by_seed.values()), ddof=1)) if len(self.by_seed) > 1 else None

    def as_values(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "mean": self.mean,
            "sd": self.sd,
            "n": len(self.by_seed),
            "by_seed": {str(seed): value for seed, value in self.by_seed.items()},
        } | ({"half_width_95_by_seed": {str(s): w for s, w in self.half_widths.items()}} if self.half_widths else {})


def paired(one: Figure, other: Figure) -> Difference | None:
    """Return `one - other` over the seeds both have; None where they share none.

    A fixed figure has its one value at every seed of the other.
    """
    return paired_by_seed(_at_seeds_of(one, other), _at_seeds_of(other, one))


def _at_seeds_of(one: Figure, other: Figure) -> Mapping[int, float]:
    if not one.fixed or other.fixed:
        return one.by_seed
    (value,) = one.by_seed.values()
    return dict.fromkeys(other.by_seed, value)
