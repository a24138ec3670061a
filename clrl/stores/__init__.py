"""Where the auxiliary's observations come from: the host's replay buffer, or a ring of its own when there is none."""

from .replay import ReplayRows
from .ring import RingBuffer
from .window import Observations, Store, Window

__all__ = ["Observations", "ReplayRows", "RingBuffer", "Store", "Window"]
