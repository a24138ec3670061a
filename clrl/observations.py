"""From raw observations to what an encoder takes: leaves of the space, views, Stable-Baselines3's own preprocessing."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_obs_shape, is_image_space, preprocess_obs
from torch import Tensor

from ..core.views import View
from .actions import ActionCode
from .stores import Observations

Views = Mapping[str, View | None]
"""A view for each kind of leaf, `image` and `vector`; None, or a kind that is missing, leaves them as they are."""


def leaf_spaces(space: spaces.Space) -> dict[str, spaces.Space]:
    """The leaves of a Dict space by name; any other space under the name `""`."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def leaf_kind(space: spaces.Space, normalize_images: bool = True) -> str:
    """`image`, `vector` (a one-dimensional Box) or `other` (no view applies), by the host's own test for images."""
    if is_image_space(space, normalized_image=not normalize_images):
        return "image"
    return "vector" if isinstance(space, spaces.Box) and len(space.shape) == 1 else "other"


class Observer:
    """The host's observation space, and the way from raw arrays of it to the input of a features extractor.

    Args:
        space: the policy's observation space (images channels first).
        normalize_images: the policy's setting: whether images are divided by 255.
        device: where the encoder is.
        action_space: the host's, for sources that hand on actions.
    """

    def __init__(self, space: spaces.Space, normalize_images: bool, device: torch.device, action_space: spaces.Space):
        self.actions = ActionCode(action_space)
        self.space, self.normalize_images, self.device = space, normalize_images, device
        self.leaves = leaf_spaces(space)
        self.kinds = {name: leaf_kind(leaf, normalize_images) for name, leaf in self.leaves.items()}

    def split(self, observations: np.ndarray | dict[str, np.ndarray]) -> Observations:
        """What the host calls an observation of E environments, as leaves `(E, *shape)`."""
        found = observations if isinstance(observations, dict) else {"": observations}
        return {name: np.asarray(found[name]).reshape(-1, *self.shape(name)) for name in self.leaves}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape in which the host stores one observation of this leaf (a Discrete one has shape (1,))."""
        return cast(tuple[int, ...], get_obs_shape(self.leaves[name]))

    def shows_difference(self, views: Views) -> bool:
        """Whether these views change any leaf of this space."""
        return any(views.get(kind) is not None for kind in self.kinds.values())

    def viewed(
        self, seen: Tensor | dict[str, Tensor], views: Views, generator: torch.Generator
    ) -> Tensor | dict[str, Tensor]:
        """The input of an encoder, preprocessed by the host already, through the views."""
        leaves = seen if isinstance(seen, dict) else {"": seen}
        found = {}
        for name, value in leaves.items():
            view = views.get(self.kinds[name])
            found[name] = value if view is None else view(value, generator)
        return found if isinstance(seen, dict) else found[""]

    def encoder_input(
        self, observations: Observations, views: Views, generator: torch.Generator
    ) -> Tensor | dict[str, Tensor]:
        """Move to the device (images still uint8), apply the views, then the host's preprocessing."""
        seen: dict[str, Tensor] = {}
        for name, values in observations.items():
            view = views.get(self.kinds[name])
            tensor = torch.as_tensor(values, device=self.device)
            if view is not None:
                tensor = view(tensor.float() if self.kinds[name] == "vector" else tensor, generator)
            seen[name] = tensor
        raw = seen if isinstance(self.space, spaces.Dict) else seen[""]
        return preprocess_obs(raw, self.space, normalize_images=self.normalize_images)
