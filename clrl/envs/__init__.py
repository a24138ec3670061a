"""Environments of our own, registered with Gymnasium when this module is imported.

`gymnasium.make("contraux.clrl.envs:contraux/NoisyCartPole-v1")` imports it and makes the environment in one call.
"""

from typing import Any

import gymnasium

from .grid import OneHotGrid, minigrid
from .minatar import minatar
from .noisy_state import NoisyState
from .pixels import pixels

__all__ = [
    "NoisyState",
    "OneHotGrid",
    "minatar",
    "minigrid",
    "noisy_acrobot",
    "noisy_cartpole",
    "noisy_pendulum",
    "pixels",
    "register",
]


def register() -> None:
    """Register `contraux/MinAtar-v1`, `MiniGrid-v1`, `Pixels-v1` and `NoisyCartPole-v1`, `NoisyAcrobot-v1`,
    `NoisyPendulum-v1`; twice is as once.
    """
    for name in ("MinAtar", "MiniGrid", "Pixels"):
        if f"contraux/{name}-v1" not in gymnasium.registry:
            entry_point = f"{__name__}:{name.lower()}"
            gymnasium.register(f"contraux/{name}-v1", entry_point=entry_point, disable_env_checker=True)
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


def noisy_acrobot(noise_dim: int = 10, rotation_seed: int = 0, **kwargs: Any) -> NoisyState:
    """Return Acrobot whose 6 state values are hidden by :class:`NoisyState`; other keywords go to Acrobot."""
    from gymnasium.envs.classic_control import AcrobotEnv

    return NoisyState(AcrobotEnv(**kwargs), noise_dim=noise_dim, rotation_seed=rotation_seed)


def noisy_pendulum(noise_dim: int = 20, rotation_seed: int = 0, **kwargs: Any) -> NoisyState:
    """Return Pendulum whose 3 state values are hidden by :class:`NoisyState`; other keywords go to Pendulum."""
    from gymnasium.envs.classic_control import PendulumEnv

    return NoisyState(PendulumEnv(**kwargs), noise_dim=noise_dim, rotation_seed=rotation_seed)


register()
