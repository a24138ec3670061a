"""An encoder for vector observations: Stable-Baselines3's MlpPolicy has none with parameters of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from ..core.encoders import MLP


class VectorEncoder(BaseFeaturesExtractor):
    """An MLP on the flattened observation; the vectors of a Dict space are joined, in the order of its keys.

    Args:
        observation_space: anything Stable-Baselines3 can flatten.
        hidden: widths of the hidden layers.
        features_dim: width of the features, an integer > 0.
    """

    def __init__(self, observation_space: spaces.Space, hidden: Sequence[int] = (64,), features_dim: int = 64):
        super().__init__(observation_space, features_dim)
        self.mlp = MLP(get_flattened_obs_dim(observation_space), hidden=hidden, out=features_dim)

    def forward(self, observations: Tensor | dict[str, Tensor]) -> Tensor:
        """`(N, ...)` preprocessed observations -> `(N, features_dim)`."""
        if isinstance(observations, dict):
            observations = torch.cat([leaf.flatten(start_dim=1) for leaf in observations.values()], dim=1)
        return self.mlp(observations.flatten(start_dim=1))


def vector_encoder(hidden: Sequence[int] = (64,), features_dim: int = 64, **policy_kwargs: Any) -> dict[str, Any]:
    """`policy_kwargs` that give a vector policy an encoder with parameters, for the auxiliary to train.

    Example:
        `PPO("MlpPolicy", env, policy_kwargs=vector_encoder())`

    Args:
        hidden: widths of the encoder's hidden layers.
        features_dim: width of its features.
        policy_kwargs: anything else for the policy, e.g. `net_arch=[64]`.
    """
    return {
        "features_extractor_class": VectorEncoder,
        "features_extractor_kwargs": {"hidden": tuple(hidden), "features_dim": features_dim},
        **policy_kwargs,
    }
