"""Bayesian optimisation of how hard the negatives are. Shape legend: O observations, C candidates, P parameters."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..check import number, whole
from .adaptive import Adaptive, Arm

Array = NDArray[np.float64]
CANDIDATES = 256  # random points among which the next one is sought


def upper_confidence(points: Array, rewards: Array, candidates: Array, kappa: float, discount: float) -> Array:
    """Return `(C,)`: posterior mean + kappa standard deviations of the reward at the candidates (GP-UCB).

    Srinivas et al. 2010, algorithm 1. The prior is a Gaussian process with a Matern 5/2 kernel of length 0.5 and the
    rewards' own mean and variance. An observation has as much noise again, and one of age a that divided by discount^a,
    so that old ones fade. Nothing is fitted: a few noisy rewards do not tell a length scale, and the same observations
    give the same answer. https://arxiv.org/abs/0912.3995

    Args:
        points: `(O, P)` in [0, 1], oldest first, O >= 1.
        rewards: `(O,)`.
        candidates: `(C, P)` in [0, 1].
        kappa: >= 0.
        discount: in (0, 1].
    """
    from sklearn.gaussian_process import GaussianProcessRegressor  # here, so that the core loads without it
    from sklearn.gaussian_process.kernels import Matern

    noise = discount ** -np.arange(len(points) - 1, -1, -1.0)
    process = GaussianProcessRegressor(Matern(0.5, nu=2.5), alpha=noise, optimizer=None, normalize_y=True)
    mean, deviation = process.fit(points, rewards).predict(candidates, return_std=True)
    return mean + kappa * deviation


class Bayesian(Adaptive):
    """Chooses hardness, hard ratio and, if asked, temperature from ranges, by the accuracy that each choice gained.

    A choice weighs negatives by `arm_weights`; how it is rewarded, the warm-up and what is read when is said in
    `Adaptive`. The next one is, of 256 random candidates, that of the largest `upper_confidence` by a Gaussian process
    of the last `window` rewards, of which old ones fade by `discount`: the best choice drifts as training goes on.
    The first choice is random.

    A decision takes scikit-learn a few milliseconds on the CPU. Rewards are noisy, and a few dozen decisions are few
    for three ranges: narrow ranges are found sooner.

    Args:
        hardness: (low, high) with 0 <= low <= high.
        hard_ratio: (low, high) within [0, 1].
        temperatures: (low, high) with 0 < low <= high, taken on a logarithmic scale, or None: not chosen. The warm-up
            uses their geometric mean.
        interval: batches that a decision is in force, >= 1.
        warmup: batches before the first decision, >= 0.
        temperature: > 0, by which the hardness divides similarities where `temperatures` is None; that of the loss.
        kappa: >= 0, how much uncertainty attracts.
        window: rewards remembered, >= 1.
        discount: in (0, 1], see above; 1 never fades.
        seed: of the draws, >= 0.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        hardness: Sequence[float] = (0.0, 1.0),
        hard_ratio: Sequence[float] = (0.0, 1.0),
        temperatures: Sequence[float] | None = None,
        interval: int = 50,
        warmup: int = 500,
        temperature: float = 0.1,
        kappa: float = 1.0,
        window: int = 64,
        discount: float = 0.98,
        seed: int = 0,
    ) -> None:
        ranges = [_range("hardness", hardness, 0.0), _range("hard_ratio", hard_ratio, 0.0, 1.0)]
        resting = None
        if temperatures is not None:
            low, high = (math.log(bound) for bound in _range("temperatures", temperatures, 0.0, above=True))
            ranges.append((low, high))
            resting = math.exp((low + high) / 2)
        super().__init__(interval, warmup, temperature, resting)
        self.ranges = ranges
        self.kappa = number("kappa of Bayesian", kappa, 0.0)
        self.window = whole("window of Bayesian", window, 1)
        self.discount = number("discount of Bayesian", discount, 0.0, 1.0, above=True)
        self.seed = whole("seed of Bayesian", seed)
        parameters = len(self.ranges)
        self.point = np.zeros(parameters)  # in force, in [0, 1]
        self.points, self.rewards = np.zeros((0, parameters)), np.zeros(0)

    def choose(self) -> Arm:
        """Return the arm at the most promising candidate."""
        candidates = np.random.default_rng((self.seed, self.decisions)).random((CANDIDATES, len(self.ranges)))
        best = 0
        if len(self.points):
            best = int(upper_confidence(self.points, self.rewards, candidates, self.kappa, self.discount).argmax())
        self.point = candidates[best]
        values = [low + (high - low) * float(x) for (low, high), x in zip(self.ranges, self.point, strict=True)]
        return Arm(values[0], values[1], math.exp(values[2]) if len(values) > 2 else None)

    def learn(self, reward: float) -> None:
        """Remember the reward of the point in force, and forget what is older than the window."""
        self.points = np.vstack((self.points, self.point))[-self.window :]
        self.rewards = np.append(self.rewards, reward)[-self.window :]

    def learned(self) -> list[float]:
        """Return the point in force, then all rewards, then their points."""
        return [*self.point.tolist(), *self.rewards.tolist(), *self.points.ravel().tolist()]

    def restore(self, learned: list[float]) -> None:
        """Take back what `learned` returned."""
        parameters = len(self.ranges)
        self.point, rest = np.array(learned[:parameters]), np.array(learned[parameters:])
        count = len(rest) // (parameters + 1)
        self.rewards, self.points = rest[:count], rest[count:].reshape(count, parameters)


def _range(
    name: str, bounds: Sequence[float], least: float, most: float = math.inf, *, above: bool = False
) -> tuple[float, float]:
    """Return the two bounds if they are in range and in order."""
    if len(bounds) != 2:
        raise ValueError(f"{name} of Bayesian must be (low, high), got {len(bounds)} numbers")
    low = number(f"low {name} of Bayesian", bounds[0], least, most, above=above)
    return low, number(f"high {name} of Bayesian", bounds[1], low, most)
