"""Which arm next? Two answers to the adversarial and the stochastic bandit. Shape legend: A arms."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def exp3_probabilities(log_weights: Vector, exploration: float) -> Vector:
    """Return p = (1 - gamma) w / sum w + gamma / A (Auer et al. 2002, algorithm Exp3, step 1)."""
    weights = np.exp(log_weights - log_weights.max())
    return (1 - exploration) * weights / weights.sum() + exploration / len(weights)


def exp3_update(log_weights: Vector, arm: int, reward: float, exploration: float, discount: float) -> Vector:
    """Return log w after `w_arm *= exp(gamma (reward / p_arm) / A)` (Auer et al. 2002, algorithm Exp3, step 4).

    Before, all log w are multiplied with the discount: estimated rewards of long ago count less.
    """
    probability = exp3_probabilities(log_weights, exploration)[arm]
    updated = discount * log_weights
    updated[arm] += exploration * reward / probability / len(log_weights)
    return updated


class Exp3:
    """EXP3 (Auer, Cesa-Bianchi, Freund, Schapire 2002): no assumption on rewards, which may drift as training goes on.

    Deviation: a discount, where the paper's Exp3.S shares weight among the arms, to follow a best arm that changes.
    """

    def __init__(self, arms: int, exploration: float, discount: float) -> None:
        self.exploration, self.discount = exploration, discount
        self.log_weights = np.zeros(arms)

    def draw(self, rng: np.random.Generator) -> tuple[int, Vector]:
        """Return an arm and the probabilities it was drawn with."""
        probabilities = exp3_probabilities(self.log_weights, self.exploration)
        return int(rng.choice(len(probabilities), p=probabilities)), probabilities

    def learn(self, arm: int, reward: float) -> None:
        """Take notice of a reward in [0, 1] of the arm drawn last."""
        self.log_weights = exp3_update(self.log_weights, arm, reward, self.exploration, self.discount)

    def learned(self) -> list[float]:
        """Return the log weights."""
        return self.log_weights.tolist()

    def restore(self, learned: Sequence[float]) -> None:
        """Take back what `learned` returned."""
        self.log_weights = np.array(learned)


class Thompson:
    """Thompson sampling: draw each arm's mean from its posterior and take the largest.

    Posterior Beta(1 + S, 1 + F) with S the sum of rewards and F that of 1 - rewards, both discounted after each
    decision (Raj and Kalyani 2017, with rewards in [0, 1] in place of wins and losses). https://arxiv.org/abs/1707.09727
    """

    DRAWS = 1000  # from which the probabilities are estimated

    def __init__(self, arms: int, discount: float) -> None:
        self.discount = discount
        self.sums = np.zeros((2, arms))

    def draw(self, rng: np.random.Generator) -> tuple[int, Vector]:
        """Return an arm and the probabilities, estimated from 1000 draws, with which each would have been taken."""
        arms = self.sums.shape[1]
        best = rng.beta(1 + self.sums[0], 1 + self.sums[1], (1 + self.DRAWS, arms)).argmax(1)
        return int(best[0]), np.bincount(best[1:], minlength=arms) / self.DRAWS

    def learn(self, arm: int, reward: float) -> None:
        """Take notice of a reward in [0, 1] of an arm."""
        self.sums *= self.discount
        self.sums[:, arm] += (reward, 1 - reward)

    def learned(self) -> list[float]:
        """Return S of all arms, then F of all arms."""
        return self.sums.ravel().tolist()

    def restore(self, learned: Sequence[float]) -> None:
        """Take back what `learned` returned."""
        self.sums = np.array(learned).reshape(2, -1)
