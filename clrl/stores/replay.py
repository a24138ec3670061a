"""Windows read from the host's own replay buffer, which is never written to.

Shape legend: T rows, E environments, N windows.
"""

from typing import Any

import numpy as np
import torch

from .window import Observations, accept, horizon_error


def leaves(observations: np.ndarray | dict[str, np.ndarray]) -> Observations:
    """The arrays of a Dict space by name, any other array under the name `""`."""
    return dict(observations) if isinstance(observations, dict) else {"": observations}


class ReplayRows:
    """A view of a Stable-Baselines3 `ReplayBuffer` (Dict, hindsight and n-step buffers store the same arrays).

    A window from t to t + k is valid if no episode ended, by termination or by a time limit, at t … t + k - 1, and the
    write head does not lie inside. Where the buffer keeps next observations, the last one of a window is read from
    there, so that the terminal observation of an episode can be a positive too.

    Args:
        buffer: the host's replay buffer.
        vec_normalize: the host's `VecNormalize`, whose statistics apply on the way out (the buffer stores raw values).
    """

    kind = "replay buffer"

    def __init__(self, buffer: Any, vec_normalize: Any | None = None):
        self.buffer = buffer
        self.vec_normalize = vec_normalize
        self.has_next = not getattr(buffer, "optimize_memory_usage", False)
        self.broken = np.zeros(buffer.buffer_size, dtype=bool)  # rows that the next row does not continue
        self._seen = (-1, False)

    @staticmethod
    def readable(buffer: Any) -> bool:
        """Whether the buffer stores its transitions in the arrays that are read here."""
        return all(hasattr(buffer, name) for name in ("observations", "dones", "pos", "full", "buffer_size", "n_envs"))

    def interrupt(self) -> None:
        """Say that what comes next does not continue what was stored: `learn` may have reset the environments.

        A buffer that was filled, or went on, while nobody watched is compared row by row once, for the same breaks.
        """
        if self._seen != (self.buffer.pos, self.buffer.full) and self.has_next:
            self._find_breaks()
        if self._rows():
            self.broken[self.buffer.pos - 1] = True

    def before_add(self) -> None:
        """Say that the host is about to write the row under its write head."""
        self.broken[self.buffer.pos] = False
        following = self.buffer.pos + 1
        self._seen = (following % self.buffer.buffer_size, self.buffer.full or following == self.buffer.buffer_size)

    def _rows(self) -> int:
        return int(self.buffer.buffer_size if self.buffer.full else self.buffer.pos)

    def _find_breaks(self) -> None:
        observations, following = leaves(self.buffer.observations), leaves(self.buffer.next_observations)
        for row in range(self._rows() - (not self.buffer.full)):
            after = (row + 1) % self.buffer.buffer_size
            running = self.buffer.dones[row] == 0
            self.broken[row] = any(
                not np.array_equal(following[name][row][running], observations[name][after][running])
                for name in observations
            )

    def sample(self, size: int, horizon: int, generator: torch.Generator) -> "ReplayWindow | None":
        """Draw windows; see :class:`~contraux.clrl.stores.window.Store`."""
        rows, total = self._rows(), int(self.buffer.buffer_size)
        n_envs = int(self.buffer.n_envs)
        if rows * n_envs < size:
            return None
        ends = horizon - 1 if self.has_next else horizon  # transitions that must not end the episode
        oldest = 1 if self.buffer.full and not self.has_next else 0  # its observation has been overwritten

        def valid(candidates: np.ndarray) -> np.ndarray:
            env, step = np.divmod(candidates, rows)
            ok = (step >= oldest) & (step + max(horizon - self.has_next, 0) < rows)
            for offset in range(ends):
                row = (self.buffer.pos - rows + step + offset) % total
                ok &= (self.buffer.dones[row, env] == 0) & ~self.broken[row]
            return ok

        drawn = accept(size, rows * n_envs, valid, generator)
        if drawn is None:
            if self.buffer.dones[:rows].any():
                raise horizon_error(horizon, self._longest())
            return None
        env, step = np.divmod(drawn, rows)
        return ReplayWindow(self, env, (self.buffer.pos - rows + step) % total, horizon)

    def _longest(self) -> int:
        """Steps in the longest run of stored transitions that no episode end interrupts."""
        rows = self._rows()
        order = (self.buffer.pos - rows + np.arange(rows)) % self.buffer.buffer_size
        longest = run = np.zeros(int(self.buffer.n_envs), dtype=np.int64)
        for row in order:
            run = run + 1
            longest = np.maximum(longest, run)
            run = np.where((self.buffer.dones[row] != 0) | self.broken[row], 0, run)
        return int(longest.max())

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Where continuity is broken; the transitions themselves are the host's to save."""
        return {"broken": torch.from_numpy(self.broken)}, {
            "kind": self.kind,
            "seen": [int(self.buffer.pos), bool(self.buffer.full)],
        }

    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Put :meth:`state` back, if the host's buffer is where it was then; else it is looked through anew."""
        position, full = values["seen"]
        if tensors["broken"].shape == self.broken.shape and (self.buffer.pos, self.buffer.full) == (position, full):
            self.broken, self._seen = tensors["broken"].numpy().copy(), (position, full)


class ReplayWindow:
    """Windows of a :class:`ReplayRows`, gathered when asked for."""

    def __init__(self, rows: ReplayRows, env: np.ndarray, row: np.ndarray, horizon: int):
        self.rows, self.env, self.row, self.horizon = rows, env, row, horizon

    def observation(self, offset: int) -> Observations:
        """Observations at time t + offset as the policy sees them; see :class:`~contraux.clrl.stores.window.Window`."""
        buffer = self.rows.buffer
        if offset and offset == self.horizon and self.rows.has_next:
            source, offset = buffer.next_observations, offset - 1
        else:
            source = buffer.observations
        row = (self.row + offset) % buffer.buffer_size
        found = {name: array[row, self.env] for name, array in leaves(source).items()}
        if self.rows.vec_normalize is None:
            return found
        return leaves(self.rows.vec_normalize.normalize_obs(found if isinstance(source, dict) else found[""]))

    def action(self, offset: int) -> np.ndarray:
        """Actions at time t + offset, which the host has scaled already."""
        buffer = self.rows.buffer
        return np.asarray(buffer.actions[(self.row + offset) % buffer.buffer_size, self.env])

    def reward(self, offset: int) -> np.ndarray:
        """Rewards at time t + offset, normalised where the host's are."""
        buffer = self.rows.buffer
        found = buffer.rewards[(self.row + offset) % buffer.buffer_size, self.env]
        if self.rows.vec_normalize is not None:
            found = self.rows.vec_normalize.normalize_reward(found)
        return np.asarray(found, dtype=np.float32)
