"""Transitions with the goals that were reached later in the same episode.

Shape legend: T rows, E environments, N samples.
"""

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from ...core.check import number

ONGOING = -1


class FutureSamples(NamedTuple):
    """A batch of transitions and of goals from their futures.

    Attributes:
        observations: of the transitions, each `(N, ...)`; `desired_goal` is the future achieved goal, not the one that
            was asked for.
        actions: `(N, A)`, scaled to [-1, 1], of a Box; `(N, 1)` choices of a Discrete space.
    """

    observations: dict[str, Tensor]
    actions: Tensor


class FutureReplayBuffer(DictReplayBuffer):
    """A replay buffer that draws, for each transition, a goal achieved k >= 1 steps later in its episode.

        P(k) = (1 - gamma) gamma^(k-1) / (1 - gamma^n),    k = 1, ..., n

    with n the number of steps stored from the transition to the end of its episode, the transition's own included. This
    is the discounted occupancy of the future (Eysenbach et al. 2022) cut where the episode ends, whether by
    termination, by a time limit, or because the environment was reset in between (:meth:`interrupt`). The last state
    of an episode can be drawn, the first one of the next never. An episode that goes on is sampled as far as it has
    come. When the buffer is full, the oldest transitions go one by one; what followed them stays.

    Args:
        buffer_size: transitions over all environments.
        observation_space: Dict with `achieved_goal` and `desired_goal`.
        action_space: of the actions.
        gamma: in (0, 1).
        kwargs: what else :class:`~stable_baselines3.common.buffers.DictReplayBuffer` takes.

    Raises:
        ValueError: gamma out of range.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Dict,
        action_space: spaces.Space[Any],
        *args: Any,
        gamma: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(buffer_size, observation_space, action_space, *args, **kwargs)
        self.gamma = number("gamma", gamma, 0.0, 1.0, above=True, below=True)
        # Arrays, so that whoever saves a buffer's arrays saves these too. Steps are counted from the first ever added.
        self.last = np.full((self.buffer_size, self.n_envs), ONGOING, dtype=np.int64)  # last step of a row's episode
        self.first = np.zeros(self.n_envs, dtype=np.int64)  # first step of the episode that goes on
        self.added = np.zeros(1, dtype=np.int64)  # steps added, rows that were overwritten included

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one step of every environment; `next_obs`, a dict like `obs`, is terminal where `done` is true."""
        self.last[self.pos] = ONGOING
        super().add(obs, next_obs, action, reward, done, infos)
        self.added += 1
        for env in np.flatnonzero(done):
            self._end(int(env))

    def interrupt(self) -> None:
        """Say that what comes next does not continue what was stored, though no episode ended: a reset in between."""
        for env in range(self.n_envs):
            self._end(env)

    def _end(self, env: int) -> None:
        newest = int(self.added[0]) - 1
        oldest = max(int(self.first[env]), newest + 1 - self.buffer_size)
        self.last[np.arange(oldest, newest + 1) % self.buffer_size, env] = newest
        self.first[env] = newest + 1

    def draw(self, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw transitions uniformly and a future of each; from NumPy's global generator, as all of SB3's buffers do.

        Returns:
            `(N,)` rows, `(N,)` environments, and `(N,)` rows whose next state is the future one.
        """
        stored = self.buffer_size if self.full else self.pos
        if stored == 0:
            raise ValueError("a replay buffer must hold a transition to be drawn from, got none")
        newest = int(self.added[0]) - 1
        step = newest - np.random.randint(stored, size=size)  # noqa: NPY002
        env = np.random.randint(self.n_envs, size=size)  # noqa: NPY002
        row = step % self.buffer_size
        last = self.last[row, env]
        length = np.where(last == ONGOING, newest, last) - step + 1
        k = truncated_geometric(np.random.random(size), length, self.gamma)  # noqa: NPY002
        return row, env, (row + k - 1) % self.buffer_size

    def sample_futures(self, size: int, env: VecNormalize | None = None) -> FutureSamples:
        """Draw a batch; observations and goals are normalised with the statistics of `env`, where there is one.

        A goal that was achieved is normalised as a desired one, since it stands in the place of one.
        """
        row, column, future = self.draw(size)
        observations = {name: array[row, column] for name, array in self.observations.items()}
        observations["desired_goal"] = self.next_observations["achieved_goal"][future, column]
        normalised: Any = self._normalize_obs(observations, env)
        return FutureSamples(
            {name: self.to_torch(array) for name, array in normalised.items()},
            self.to_torch(self.actions[row, column]),
        )


def truncated_geometric(uniform: np.ndarray, length: np.ndarray, gamma: float) -> np.ndarray:
    """Return the `(N,)` whole k in [1, length] with P(k) proportional to gamma^k whose quantile `uniform` is.

    Args:
        uniform: `(N,)` in [0, 1).
        length: `(N,)` whole numbers >= 1.
        gamma: in (0, 1).
    """
    # P(k' <= k) = (1 - gamma^k) / (1 - gamma^n) is solved for k; expm1 and log1p keep gamma near 1 exact.
    log_gamma = np.log(gamma)
    k = np.floor(np.log1p(uniform * np.expm1(length * log_gamma)) / log_gamma).astype(np.int64) + 1
    return np.minimum(k, length)  # uniform just below 1 may round up
