"""Novelty bonuses: rewards for observations that are new to the agent, as one callback.

from contraux.clrl.exploration import NoveltyBonus

PPO("CnnPolicy", env).learn(100_000, callback=[ContrastiveAuxiliary("curl"), NoveltyBonus("episodic", weight=0.1)])
"""

from .bonus import Bonus, EpisodeMemory, Host, Steps
from .callback import NoveltyBonus
from .elliptical import Elliptical
from .episodic import EpisodicKNN
from .rnd import RandomNetworkDistillation

__all__ = [
    "Bonus",
    "Elliptical",
    "EpisodeMemory",
    "EpisodicKNN",
    "Host",
    "NoveltyBonus",
    "RandomNetworkDistillation",
    "Steps",
]
