"""A bandit that chooses how hard the negatives are."""

from collections.abc import Sequence

import numpy as np

from ..check import choice, number, whole
from .adaptive import Adaptive, Arm
from .policies import Exp3, Thompson

ARMS = (Arm(0.0, 0.0), Arm(0.5, 0.5), Arm(1.0, 0.5), Arm(1.0, 1.0))
"""Uniform; and HCL's range of beta, from a little to all of the weight."""


class Bandit(Adaptive):
    """Chooses among a few arms, hardness, hard ratio and temperature, by the accuracy that each gains.

    An arm weighs negatives by `arm_weights`; how it is rewarded, the warm-up and what is read when is said in
    `Adaptive`. Which arm is next says

    - `thompson`: draws from Beta posteriors of the rewards (Raj and Kalyani 2017), or
    - `exp3`: exponential weights of estimated rewards, with a share of exploration (Auer et al. 2002), which assumes
      nothing about the rewards and learns slower.

    Both forget by `discount`. Made streams of accuracies with three arms, one of which gains 0.02 an interval while the
    others lose as much, under a noise of 0.007: of the decisions 10 to 50, 93 % (thompson) and 51 % (exp3) took the
    better arm. With gains of 0.004 it was 64 % and 39 %, and hundreds of decisions later still 71 % and 46 %.

    Metrics: `sampler/arm` (its place in `arms`, -1 in the warm-up) and `sampler/probability` (with which it was chosen,
    1 in the warm-up), besides those of `Adaptive`.

    Args:
        arms: at least 2 `Arm`s or (hardness, hard ratio, temperature); the temperature may be left out, of all or of
            none. The warm-up uses that of the first arm.
        method: thompson or exp3.
        interval: batches that a decision is in force, >= 1.
        warmup: batches before the first decision, >= 0.
        temperature: > 0, by which the hardness divides similarities where arms have none; give it that of the loss.
        exploration: in (0, 1], gamma of EXP3.
        discount: in (0, 1], what earlier rewards count for after each decision; 1 never forgets.
        seed: of the draws, >= 0.

    Raises:
        ValueError: a number out of range, or arms of which only some have a temperature.
    """

    def __init__(
        self,
        arms: Sequence[Sequence[float | None]] = ARMS,
        method: str = "thompson",
        interval: int = 50,
        warmup: int = 500,
        temperature: float = 0.1,
        exploration: float = 0.2,
        discount: float = 0.98,
        seed: int = 0,
    ) -> None:
        found = [_arm(i, *values) for i, values in enumerate(arms)]
        if len(found) < 2:
            raise ValueError(f"Bandit needs at least 2 arms, got {len(found)}")
        if len({arm.temperature is None for arm in found}) > 1:
            raise ValueError("all arms of Bandit must have a temperature or none, got some with and some without")
        super().__init__(interval, warmup, temperature, found[0].temperature)
        self.arms = found
        discount = number("discount of Bandit", discount, 0.0, 1.0, above=True)
        exploration = number("exploration of Bandit", exploration, 0.0, 1.0, above=True)
        self.seed = whole("seed of Bandit", seed)
        self.policy: Exp3 | Thompson
        if choice("method of Bandit", method, ("exp3", "thompson")) == "exp3":
            self.policy = Exp3(len(self.arms), exploration, discount)
        else:
            self.policy = Thompson(len(self.arms), discount)
        self._index, self._probability = -1, 1.0

    def choose(self) -> Arm:
        """Return the arm that the policy draws."""
        self._index, probabilities = self.policy.draw(np.random.default_rng((self.seed, self.decisions)))
        self._probability = float(probabilities[self._index])
        return self.arms[self._index]

    def learn(self, reward: float) -> None:
        """Hand the reward to the policy."""
        self.policy.learn(self._index, reward)

    def report(self) -> dict[str, float]:
        """Return which arm and how probable it was."""
        return {"arm": float(self._index), "probability": self._probability}

    def learned(self) -> list[float]:
        """Return the arm in force, its probability, and what the policy learned."""
        return [self._index, self._probability, *self.policy.learned()]

    def restore(self, learned: list[float]) -> None:
        """Take back what `learned` returned."""
        self._index, self._probability = int(learned[0]), learned[1]
        self.policy.restore(learned[2:])


def _arm(index: int, hardness: float | None, hard_ratio: float | None, temperature: float | None = None) -> Arm:
    """Return the arm if its numbers are in range."""
    if temperature is not None:
        temperature = number(f"temperature of arm {index}", temperature, 0.0, above=True)
    hardness = number(f"hardness of arm {index}", hardness, 0.0)
    return Arm(hardness, number(f"hard_ratio of arm {index}", hard_ratio, 0.0, 1.0), temperature)
