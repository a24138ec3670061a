"""Environments of our own, registered with Gymnasium when this module is imported.

`gymnasium.make("contraux.clrl.envs:contraux/NoisyCartPole-v1")` imports it and makes the environment in one call.
"""

from typing import Any

import gymnasium

from .noisy_state import NoisyState

__all__ = ["NoisyState", "noisy_cartpole", "register"]


def register() -> None:
    """Register `contraux/NoisyCartPole-v1`; calling it again changes nothing."""
    if "contraux/NoisyCartPole-v1" not in gymnasium.registry:
        cartpole = gymnasium.spec("CartPole-v1")
        gymnasium.register(
            "contraux/NoisyCartPole-v1",
            entry_point=f"{__name__}:noisy_cartpole",
            max_episode_steps=cartpole.max_episode_steps,
            reward_threshold=cartpole.reward_threshold,
        )


def noisy_cartpole(noise_dim: int = 60, rotation_seed: int = 0, **kwargs: Any) -> NoisyState:
    """Return CartPole whose 4 state values are hidden by :class:`NoisyState`; other keywords go to CartPole."""
    from gymnasium.envs.classic_control import CartPoleEnv

    return NoisyState(CartPoleEnv(**kwargs), noise_dim=noise_dim, rotation_seed=rotation_seed)


register()
