"""Stable-Baselines3's replay buffer with each frame of stacked images stored once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer

from .frame_store import FrameStore


class FrameReplayBuffer(ReplayBuffer):
    """`stable_baselines3.common.buffers.ReplayBuffer` in about 1 / (2 x frames in a stack) of its memory.

    Its samples equal those of SB3's buffer bit for bit, true terminal observations and time limits included: what is
    drawn and how stays SB3's own code, and only the arrays behind `observations` and `next_observations` are others.
    They put stacks together from single frames, of which neighbouring stacks share all but one. How many channels make
    a frame is found out by comparing, so that grey and coloured stacks of `VecFrameStack` or of Gymnasium's
    `FrameStackObservation` need no setting; images that are not stacked take half of SB3's memory.

    Example:
        `DQN("CnnPolicy", env, replay_buffer_class=FrameReplayBuffer, buffer_size=1_000_000)`

    Args:
        buffer_size: transitions, over all environments together.
        observation_space: images, uint8, channels first, frames one after the other along the channels.
        action_space, device, n_envs, handle_timeout_termination: as SB3's.
        optimize_memory_usage: must be False: it loses terminal observations, and nothing is left to save.

    Raises:
        ValueError: observations that are no images, or `optimize_memory_usage`.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *args: Any,
        optimize_memory_usage: bool = False,
        **kwargs: Any,
    ):
        if optimize_memory_usage:
            raise ValueError("FrameReplayBuffer needs optimize_memory_usage=False, got True: each frame is stored once")
        if not storable(observation_space):
            raise ValueError(
                f"FrameReplayBuffer stores images, a Box of uint8 with three axes, got {observation_space}: "
                "leave replay_buffer_class out"
            )
        # SB3's own arrays of observations stay empty.
        super().__init__(buffer_size, spaces.Box(0, 255, (0,), np.uint8), action_space, *args, **kwargs)
        self.observation_space = observation_space
        self.obs_shape = observation_space.shape  # type: ignore[assignment]
        self.frames = FrameStore(self.buffer_size, self.n_envs, self.obs_shape)
        self._show_frames()

    def _show_frames(self) -> None:
        frames = self.frames
        self.observations: Any = Stacks(frames, frames.now, frames.write_now)
        self.next_observations: Any = Stacks(frames, frames.following, frames.write_following)

    def reset(self) -> None:
        """Forget all transitions."""
        super().reset()
        self.frames.interrupt()


class FrameNStepReplayBuffer(FrameReplayBuffer, NStepReplayBuffer):
    """The same for n-step returns: `replay_buffer_kwargs={"n_steps": 3, "gamma": 0.99}`."""


class Stacks:
    """A table of a :class:`FrameStore` as the array `(T, E, C, H, W)` that SB3 takes it for.

    It is read by any index into its first three axes, and written row by row.
    """

    def __init__(self, frames: FrameStore, table: np.ndarray, write: Callable[[int, np.ndarray], None]):
        self.frames, self.table, self.write = frames, table, write
        self.shape = (*table.shape[:2], *frames.shape)
        self.dtype = np.dtype(np.uint8)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.frames.read(self.table[index])

    def __setitem__(self, row: int, stacks: np.ndarray) -> None:
        self.write(row, np.asarray(stacks, dtype=np.uint8).reshape(self.shape[1:]))

    def __len__(self) -> int:
        return len(self.table)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def storable(space: spaces.Space) -> bool:
    """Whether :class:`FrameReplayBuffer` can hold observations of this space."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3
