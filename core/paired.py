"""Differences paired by seed: what every comparison of the project says of two arms."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

ENOUGH = 5  # pairs: with fewer, differences of one sign are too likely by chance for an interval to mean much
AGREEING = 0.8  # share of seeds: three of five can take a bootstrap interval away from 0, as large as they may be

RULE = (
    f"A difference counts as shown where its 95 % interval excludes 0 and at least {100 * AGREEING:.0f} % of at least "
    f"{ENOUGH} seeds agree with its sign."
)


class Difference(NamedTuple):
    """A paired difference: mean over `pairs` seeds, 95 % bootstrap interval (None for fewer than 2), seeds above 0.

    A difference of 0 is neither `up` nor `down`.
    """

    mean: float
    low: float | None
    high: float | None
    up: int
    pairs: int
    down: int

    @property
    def finding(self) -> str:
        """Say in words what the seeds show."""
        return self.in_words("higher", "lower")

    def in_words(self, above: str, below: str) -> str:
        """Return what the seeds show, with these words for a difference above 0 and one below; see :data:`RULE`."""
        if self.low is None or self.high is None or self.pairs < ENOUGH:
            return "too few seeds to tell"
        if self.low <= 0 <= self.high:
            return "no difference shown"
        word, agreeing = (above, self.up) if self.low > 0 else (below, self.down)
        return word if agreeing >= AGREEING * self.pairs else "no difference shown, the seeds disagree"

    def text(self, decimals: int = 1) -> str:
        """Return difference and interval in figures."""
        interval = "" if self.low is None else f" [{self.low:.{decimals}f}, {self.high:.{decimals}f}]"
        return f"{self.mean:+.{decimals}f}{interval}"

    def __str__(self) -> str:
        return self.text()


def paired(values: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    """Return `values - base` over the seeds that both have; None where they have none in common.

    The interval is the percentile bootstrap of the mean difference, 9,999 resamples of seeds from a generator of its
    own, so that the same values always give the same interval.
    """
    seeds = sorted(values.keys() & base.keys())
    if not seeds:
        return None
    differences = np.array([values[seed] - base[seed] for seed in seeds])
    low = high = None
    if len(seeds) > 1:
        interval = stats.bootstrap(
            (differences,), np.mean, method="percentile", random_state=np.random.default_rng(0)
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    return Difference(float(differences.mean()), low, high, up, len(seeds), down)
