"""Contrastive goal-conditioned reinforcement learning."""

from .algorithm import ContrastiveRL
from .policy import ContrastiveCritic, ContrastivePolicy
from .replay import FutureReplayBuffer

__all__ = ["ContrastiveCritic", "ContrastivePolicy", "ContrastiveRL", "FutureReplayBuffer"]
