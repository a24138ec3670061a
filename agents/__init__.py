"""Agents whose constructor takes a contrastive auxiliary and whose save and load keep it; and the training job."""

from stable_baselines3 import A2C, DQN, PPO, SAC, TD3

from .auxiliary import with_auxiliary

ContrastivePPO = with_auxiliary(PPO)
ContrastiveA2C = with_auxiliary(A2C)
ContrastiveDQN = with_auxiliary(DQN)
ContrastiveSAC = with_auxiliary(SAC)
ContrastiveTD3 = with_auxiliary(TD3)

__all__ = [
    "ContrastiveA2C",
    "ContrastiveDQN",
    "ContrastivePPO",
    "ContrastiveSAC",
    "ContrastiveTD3",
    "with_auxiliary",
]
