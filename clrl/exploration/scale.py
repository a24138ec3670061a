"""The running standard deviation a bonus is divided by."""

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd

CLIP = 5.0


class ReturnScale:
    """Divide a bonus by the standard deviation of its own discounted returns, over all of training so far.

    As in Burda et al. 2018 (section 2.4): whatever the units of a bonus, its returns then vary by about one, and
    `weight` means the same for every bonus. Single rewards are clipped to 5, which only the very first steps reach,
    while the deviation is hardly known.

    Args:
        n_envs: number of parallel environments E.
        gamma: discount factor of the host.
    """

    def __init__(self, n_envs: int, gamma: float):
        self.gamma = gamma
        self.returns = np.zeros(n_envs)
        self.moments = RunningMeanStd(shape=())

    def begin(self) -> None:
        """Say that new episodes begin everywhere."""
        self.returns[:] = 0.0

    def __call__(self, novelty_TE: np.ndarray, ended_TE: np.ndarray) -> np.ndarray:
        """Take `(T, E)` bonuses into the statistics, then return them scaled; returns end where an episode did."""
        seen = np.empty(novelty_TE.shape)
        for t, (novelty, ended) in enumerate(zip(novelty_TE, ended_TE, strict=True)):
            self.returns = self.returns * self.gamma + novelty
            seen[t] = self.returns
            self.returns = np.where(ended, 0.0, self.returns)
        self.moments.update(seen.reshape(-1))
        return np.minimum(novelty_TE / self.deviation, CLIP)

    @property
    def deviation(self) -> float:
        """The standard deviation of the returns seen so far."""
        return float(np.sqrt(self.moments.var + 1e-8))

    def state(self) -> dict[str, float]:
        """Mean, variance and count of the returns."""
        return {name: float(getattr(self.moments, name)) for name in ("mean", "var", "count")}

    def load_state(self, values: dict[str, float]) -> None:
        """Put :meth:`state` back in place."""
        for name, value in values.items():
            setattr(self.moments, name, np.float64(value))
