"""The metrics of generative runs: which there are, which way is better, and how two arms differ in one."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

from ..core.comparison.plan import flat
from ..core.comparison.table import Results
from ..core.paired import Difference, paired

LOWER = {"frechet", "kernel", "error", "loss", "missing", "variation"}
HIGHER = {"precision", "recall", "density", "coverage", "probe", "accuracy", "agreement"}
"""Words in the name of a metric that say which way is better; of several, the last one does."""

COSTS = {"seconds": "seconds", "cpu_seconds": "CPU-seconds", "steps": "steps"}


class Compared(NamedTuple):
    """A metric of one arm against that of another.

    Attributes:
        metric: its name.
        arm: whose it is.
        reference: whose is taken away from it.
        difference: over the seeds that both have.
        by_seed: what it is the mean of.
    """

    metric: str
    arm: str
    reference: str
    difference: Difference
    by_seed: Mapping[int, float]

    @property
    def better(self) -> int:
        """In how many seeds the arm was better; higher, where the metric knows no better."""
        return self.difference.down if direction(self.metric) == "lower" else self.difference.up

    @property
    def finding(self) -> str:
        """What the seeds show, in words."""
        words = {"lower": ("a loss", "a gain"), "higher": ("a gain", "a loss"), None: ("higher", "lower")}
        return self.difference.in_words(*words[direction(self.metric)])


def direction(metric: str) -> Literal["lower", "higher"] | None:
    """Return which way a metric is better by the words in its name; None where neither is, as of a floor."""
    words = re.split(r"[^a-z]+", metric.lower())
    if "floor" in words:
        return None
    found = next((word for word in reversed(words) if word in LOWER | HIGHER), "")
    return "lower" if found in LOWER else "higher" if found in HIGHER else None


def values(results: Results, arm: str, measure: str) -> dict[int, float]:
    """Return a metric or cost of the arm's completed runs by seed, without runs that could not say it."""
    found = {}
    for seed, result in results[arm].items():
        value = (result if measure in COSTS else numbers(result)).get(measure)
        if result["status"] == "completed" and isinstance(value, int | float) and math.isfinite(value):
            found[seed] = float(value)
    return found


def numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's metrics by name; those in a section are named `section.name`."""
    return flat(result.get("metrics") or {})


def metrics_of(results: Results, chosen: Sequence[str] | None = None) -> list[str]:
    """Return the names of the metrics that completed runs have, in their order.

    Args:
        results: of all runs.
        chosen: names, or patterns such as `*frechet*`; None takes all. One that no run has is left out.
    """
    completed = [result for runs in results.values() for result in runs.values() if result["status"] == "completed"]
    found = list(dict.fromkeys(name for result in completed for name in numbers(result)))
    found = [name for name in found if any(values(results, arm, name) for arm in results)]
    patterns = ["*"] if chosen is None else chosen
    return list(dict.fromkeys(name for pattern in patterns for name in found if fnmatchcase(name, pattern)))


def compared(results: Results, metrics: Sequence[str], arm: str, reference: str) -> Iterator[Compared]:
    """Return the differences of one arm to another, in the metrics of which both have some."""
    for metric in metrics:
        own, other = values(results, arm, metric), values(results, reference, metric)
        difference = paired(own, other)
        if difference is not None:
            by_seed = {seed: own[seed] - other[seed] for seed in own.keys() & other.keys()}
            yield Compared(metric, arm, reference, difference, by_seed)
