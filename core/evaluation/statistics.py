"""Figures over seeds, and differences paired by seed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

ENOUGH = 5  # pairs: with fewer, differences of one sign are too likely by chance for an interval to mean much


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


class Difference(NamedTuple):
    """A paired difference: mean over `pairs` seeds, 95 % bootstrap interval (None for fewer than 2), seeds above 0."""

    mean: float
    low: float | None
    high: float | None
    up: int
    pairs: int

    @property
    def finding(self) -> str:
        """Say in words what the interval shows."""
        if self.low is None or self.high is None or self.pairs < ENOUGH:
            return "too few seeds to tell"
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "no difference shown"


def paired(one: Figure, other: Figure) -> Difference | None:
    """Return `one - other` over the seeds both have; None where they share none.

    A fixed figure has its one value at every seed of the other. The interval is the percentile bootstrap of the mean
    difference: 9,999 resamples of seeds from a generator of its own, so that the same values always give the same
    interval.
    """
    first, second = _at_seeds_of(one, other), _at_seeds_of(other, one)
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    differences = np.array([first[seed] - second[seed] for seed in seeds])
    low = high = None
    if len(seeds) > 1:
        interval = stats.bootstrap(
            (differences,), np.mean, method="percentile", random_state=np.random.default_rng(0)
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Difference(float(differences.mean()), low, high, int((differences > 0).sum()), len(seeds))


def _at_seeds_of(one: Figure, other: Figure) -> Mapping[int, float]:
    if not one.fixed or other.fixed:
        return one.by_seed
    (value,) = one.by_seed.values()
    return dict.fromkeys(other.by_seed, value)
