"""Environments of our own, registered with Gymnasium when this module is imported.

`gymnasium.make("contraux.clrl.envs:contraux/NoisyCartPole-v1")` imports it and makes the environment in one call.
"""

from typing import Any

import gymnasium

from .grid import OneHotGrid, minigrid
from .noisy_state import NoisyState

__all__ = ["NoisyState", "OneHotGrid", "minigrid", "noisy_acrobot", "noisy_cartpole", "noisy_pendulum", "register"]


def register() -> None:
    """Register `contraux/NoisyCartPole-v1`, `NoisyAcrobot-v1`, `NoisyPendulum-v1`, `MiniGrid-v1`; twice is as once."""
    if "contraux/MiniGrid-v1" not in gymnasium.registry:
        gymnasium.register("contraux/MiniGrid-v1", entry_point=f"{__name__}:minigrid", disable_env_checker=True)
    for name in ("CartPole", "Acrobot", "Pendulum"):
        id = f"contraux/Noisy{name}-v1"
        if id not in gymnasium.registry:
            plain = gymnasium.spec(f"{name}-v1")
            gymnasium.register(
                id,
                entry_point=f"{__name__}:noisy_{name.lower()}",
                max_episode_steps=plain.max_episode_steps,
                reward_threshold=plain.reward_threshold,
            )


def noisy_cartpole(noise_dim: int = 60, rotation_seed: int = 0, **kwargs: Any) -> NoisyState:
    """Return CartPole whose 4 state values are hidden by :class:`NoisyState`; other keywords go to CartPole."""
    from gymnasium.envs.classic_control import CartPoleEnv

    return NoisyState(CartPoleEnv(**kwargs), noise_dim=noise_dim, rotation_seed=rotation_seed)


def noisy_acrobot(noise_dim: int = 20, rotation_seed: int = 0, **kwargs: Any) -> NoisyState:
    """Return Acrobot whose 6 state values are hidden by :class:`NoisyState`; other keywords go to Acrobot."""
    from gymnasium.envs.classic_control import AcrobotEnv

    return NoisyState(AcrobotEnv(**kwargs), noise_dim=noise_dim, rotation_seed=rotation_seed)


def noisy_pendulum(noise_dim: int = 20, rotation_seed: int = 0, **kwargs: Any) -> NoisyState:
    """Return Pendulum whose 3 state values are hidden by :class:`NoisyState`; other keywords go to Pendulum."""
    from gymnasium.envs.classic_control import PendulumEnv

    return NoisyState(PendulumEnv(**kwargs), noise_dim=noise_dim, rotation_seed=rotation_seed)


register()
