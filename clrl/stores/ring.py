"""A ring buffer of past observations for algorithms that keep none (on-policy), each frame stored once.

Shape legend: E environments, T rows per environment, N windows.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from .window import Observations, accept, horizon_error


class Leaf(NamedTuple):
    """How one leaf of the observation space is stored.

    Attributes:
        shape: of one observation, as the policy sees it (images channels first).
        dtype: of the stored array, the space's own (uint8 for images).
        stack: how many frames lie in one observation along its first axis, oldest first; 1 stores it whole.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    stack: int = 1


class RingBuffer:
    """The last observations of every environment, oldest overwritten first.

    A stack of frames is stored as single frames and put together again on the way out. Where an observation does not
    continue the previous one (an episode starts, an observation was skipped), its whole stack is written, the older
    frames as rows of negative `age` that are never drawn, so that what comes out equals what went in, to the last bit,
    however the host pads the first frames of an episode.

    Args:
        rows: capacity over all environments together, in frames.
        n_envs: number of parallel environments E.
        leaves: the leaves of the observation space.
        action: how one action is stored.
    """

    kind = "ring buffer"

    def __init__(self, rows: int, n_envs: int, leaves: Mapping[str, Leaf], action: Leaf):
        self.leaves = dict(leaves)
        self.history = max(leaf.stack for leaf in self.leaves.values()) - 1
        self.length = rows // n_envs
        if self.length < self.history + 2:
            raise ValueError(
                f"buffer_size must hold at least {self.history + 2} frames per environment, "
                f"got {rows} for {n_envs} environments"
            )
        self.frames = {
            name: np.empty((n_envs, self.length, leaf.shape[0] // leaf.stack, *leaf.shape[1:]), leaf.dtype)
            if leaf.stack > 1
            else np.empty((n_envs, self.length, *leaf.shape), leaf.dtype)
            for name, leaf in self.leaves.items()
        }
        self.actions = np.zeros((n_envs, self.length, *action.shape), action.dtype)
        self.rewards = np.zeros((n_envs, self.length), np.float32)
        self.age = np.zeros((n_envs, self.length), dtype=np.int32)  # steps since the episode began
        self.written = np.zeros(n_envs, dtype=np.int64)  # rows ever written, so the write head is written % length
        self.next_age = np.zeros(n_envs, dtype=np.int32)
        self.last: Observations = {}
        self.longest_ended = 0
        self._envs = np.arange(n_envs)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored frames."""
        return sum(frames.nbytes for frames in self.frames.values())

    def interrupt(self) -> None:
        """Say that what comes next does not continue what came before (the environments may have been reset)."""
        self.next_age[:] = 0

    def add(self, observations: Observations, dones: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> None:
        """Append one time step per environment.

        Args:
            observations: leaves `(E, ...)`, what the policy acted on.
            dones: `(E,)` bool, whether the action taken there ended the episode (terminated or truncated).
            actions: `(E, ...)`, the actions taken there.
            rewards: `(E,)`, what they earned.
        """
        if self.history:
            for env in np.flatnonzero((self.next_age == 0) | ~self._continues(observations)):
                self._write_history(int(env), observations)
            self.last = {name: values.copy() for name, values in observations.items()}
        column = self.written % self.length
        for name, frames in self.frames.items():
            frames[self._envs, column] = (
                observations[name][:, -frames.shape[2] :] if self.leaves[name].stack > 1 else (observations[name])
            )
        self.actions[self._envs, column] = actions.reshape(len(self._envs), *self.actions.shape[2:])
        self.rewards[self._envs, column] = rewards
        self.age[self._envs, column] = self.next_age
        self.written += 1
        if dones.any():
            self.longest_ended = max(self.longest_ended, int(self.next_age[dones].max()) + 1)
        self.next_age = np.where(dones, 0, self.next_age + 1).astype(np.int32)

    def _continues(self, observations: Observations) -> np.ndarray:
        """`(E,)` bool: the older frames of each stack are the newer frames of the previous one."""
        same = np.ones(len(self._envs), dtype=bool)
        for name, leaf in self.leaves.items():
            if leaf.stack > 1 and self.last:
                n = leaf.shape[0] // leaf.stack
                differs = observations[name][:, :-n] != self.last[name][:, n:]
                same &= ~differs.reshape(len(same), -1).any(axis=1)
        return same

    def _write_history(self, env: int, observations: Observations) -> None:
        """Write the older frames of this stack as rows that only serve to rebuild it."""
        self.next_age[env] = 0
        for back in range(self.history, 0, -1):
            row = self.written[env] % self.length
            for name, frames in self.frames.items():
                stack = self.leaves[name].stack
                if stack > back:
                    n = frames.shape[2]
                    frames[env, row] = observations[name][env, (stack - 1 - back) * n : (stack - back) * n]
            self.age[env, row] = -back
            self.written[env] += 1

    def sample(self, size: int, horizon: int, generator: torch.Generator) -> "RingWindow | None":
        """Draw windows; see :class:`~contraux.clrl.stores.window.Store`.

        A window ends in a row whose age is at least `horizon`, which says by itself that its start lies in the same
        episode; the oldest rows are left out where their frames, or the window's start, have been overwritten.
        """
        filled = np.minimum(self.written, self.length)
        if int(filled.sum()) < size:
            return None
        depth = int(filled.max())

        def position(candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            env, back = np.divmod(candidates, depth)  # back: rows behind the newest one
            return env, back, (self.written[env] - 1 - back) % self.length

        def valid(candidates: np.ndarray) -> np.ndarray:
            env, back, row = position(candidates)
            return (back + horizon + self.history < filled[env]) & (self.age[env, row] >= horizon)

        drawn = accept(size, len(self._envs) * depth, valid, generator)
        if drawn is None:
            if self.longest_ended:
                raise horizon_error(horizon, max(self.longest_ended, int(self.next_age.max())))
            return None
        env, _, last_row = position(drawn)
        return RingWindow(self, env, last_row - horizon)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The rows written so far as tensors (views where the ring is full), and plain values."""
        rows = int(min(self.written.max(), self.length))
        tensors = {f"frames.{name}": torch.from_numpy(frames[:, :rows]) for name, frames in self.frames.items()}
        tensors |= {f"last.{name}": torch.from_numpy(values) for name, values in self.last.items()}
        tensors["age"] = torch.from_numpy(self.age[:, :rows])
        tensors["actions"] = torch.from_numpy(self.actions[:, :rows])
        tensors["rewards"] = torch.from_numpy(self.rewards[:, :rows])
        values = {
            "kind": self.kind,
            "length": self.length,
            "written": self.written.tolist(),
            "next_age": self.next_age.tolist(),
            "longest_ended": self.longest_ended,
        }
        return tensors, values

    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Put :meth:`state` back in place.

        Raises:
            ValueError: it comes from a ring of other sizes.
        """
        rows = tensors["age"].shape[1] if "age" in tensors else 0
        expected = {name: frames[:, :rows].shape for name, frames in self.frames.items()}
        found = {
            name.removeprefix("frames."): tuple(value.shape)
            for name, value in tensors.items()
            if name.startswith("frames.")
        }
        if values.get("length") != self.length or found != expected:
            raise ValueError(
                f"the saved ring buffer must hold {self.length} rows per environment of frames {expected}, "
                f"got {values.get('length')} of {found}; use the same n_envs, buffer_size and observation space, "
                "or save with include_buffer=False"
            )
        for name, frames in self.frames.items():
            frames[:, :rows] = tensors[f"frames.{name}"].numpy()
        self.age[:, :rows] = tensors["age"].numpy()
        self.actions[:, :rows] = tensors["actions"].numpy()
        self.rewards[:, :rows] = tensors["rewards"].numpy()
        self.last = {
            name.removeprefix("last."): value.numpy() for name, value in tensors.items() if name.startswith("last.")
        }
        self.written = np.array(values["written"], dtype=np.int64)
        self.next_age = np.array(values["next_age"], dtype=np.int32)
        self.longest_ended = int(values["longest_ended"])


class RingWindow:
    """Windows of a :class:`RingBuffer`, gathered when asked for."""

    def __init__(self, ring: RingBuffer, env: np.ndarray, row: np.ndarray):
        self.ring, self.env, self.row = ring, env, row

    def observation(self, offset: int) -> Observations:
        """Raw observations at time t + offset; see :class:`~contraux.clrl.stores.window.Window`."""
        return {name: self._leaf(name, offset) for name in self.ring.leaves}

    def action(self, offset: int) -> np.ndarray:
        """Actions at time t + offset."""
        return self.ring.actions[self.env, (self.row + offset) % self.ring.length]

    def reward(self, offset: int) -> np.ndarray:
        """Rewards at time t + offset."""
        return self.ring.rewards[self.env, (self.row + offset) % self.ring.length]

    def _leaf(self, name: str, offset: int) -> np.ndarray:
        frames, leaf = self.ring.frames[name], self.ring.leaves[name]
        if leaf.stack == 1:
            return frames[self.env, (self.row + offset) % self.ring.length]
        rows = (self.row[:, None] + np.arange(offset - leaf.stack + 1, offset + 1)) % self.ring.length
        return frames[self.env[:, None], rows].reshape(len(self.env), *leaf.shape)
