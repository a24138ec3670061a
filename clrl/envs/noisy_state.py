"""A control task whose state is hidden among noise: the smallest test of whether an objective finds what matters."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class NoisyState(
    gymnasium.ObservationWrapper[np.ndarray, Any, np.ndarray],
    gymnasium.utils.RecordConstructorArgs,
):
    """Hide a vector observation among Gaussian noise behind a fixed random rotation.

    The observation `s` of the environment, `(D,)`, becomes `R [s, z]`, `(D + noise_dim,)` float32, where `z` is drawn
    anew at every step from the standard normal distribution with the environment's own generator, and `R` is an
    orthogonal matrix drawn once from `rotation_seed`. The rotation keeps the norm, so nothing is lost or rescaled; but
    no single coordinate of the observation says anything by itself. What is predictable from one step to the next
    is exactly the state, which is why a temporal contrastive objective should find it.

    Two copies with the same `rotation_seed` (training, evaluation) rotate alike whatever they are reset with.

    Args:
        env: environment with a one-dimensional `Box` observation.
        noise_dim: number of noise values, an integer >= 0.
        rotation_seed: seed of the rotation, an integer >= 0.

    Raises:
        ValueError: when the observation is no vector, or a number is out of its range.
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, Any], noise_dim: int = 60, rotation_seed: int = 0) -> None:
        for name, value in (("noise_dim", noise_dim), ("rotation_seed", rotation_seed)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be an integer >= 0, got {value!r}")
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"NoisyState needs a Box observation of one dimension, got {space}")
        gymnasium.utils.RecordConstructorArgs.__init__(self, noise_dim=noise_dim, rotation_seed=rotation_seed)
        gymnasium.ObservationWrapper.__init__(self, env)
        self.noise_dim = noise_dim
        size = space.shape[0] + noise_dim
        self.rotation = random_rotation(size, rotation_seed)
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return `R [observation, noise]`, float32."""
        noise = self.np_random.standard_normal(self.noise_dim)
        return (self.rotation @ np.concatenate([observation, noise])).astype(np.float32)


def random_rotation(size: int, seed: int) -> np.ndarray:
    """Return an orthogonal matrix `(size, size)`, float64, uniform over the orthogonal group (Haar measure).

    QR of a Gaussian matrix, with the signs of the diagonal of R moved into Q, without which the distribution depends
    on the QR routine (Mezzadri 2007, "How to generate random matrices from the classical compact groups", section 5).
    """
    orthogonal, triangular = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return orthogonal * np.sign(np.diag(triangular))
