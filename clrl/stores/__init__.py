"""Where the auxiliary's observations come from: the host's replay buffer, or a ring of its own when there is none."""

from .frame_replay import FrameNStepReplayBuffer, FrameReplayBuffer
from .nothing import NoStore
from .replay import ReplayRows
from .ring import RingBuffer
from .window import Observations, Store, Window

__all__ = [
    "FrameNStepReplayBuffer",
    "FrameReplayBuffer",
    "NoStore",
    "Observations",
    "ReplayRows",
    "RingBuffer",
    "Store",
    "Window",
]
