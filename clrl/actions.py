"""Actions as rows of numbers, for objectives that predict what an action leads to.

Shape legend: N actions, E environments, A numbers in the code of one action.
"""

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor


class ActionCode:
    """The code of an action space: one-hot for choices, the values themselves for a Box, joined for several.

    Args:
        space: Discrete, MultiDiscrete, MultiBinary or Box; others are refused when first used, since most objectives
            never look at an action.
    """

    def __init__(self, space: spaces.Space):
        self.space = space

    @property
    def size(self) -> int:
        """A, how many numbers the code of one action has.

        Raises:
            ValueError: the action space is of a kind that has no code.
        """
        if isinstance(self.space, spaces.Discrete):
            return int(self.space.n)
        if isinstance(self.space, spaces.MultiDiscrete):
            return int(self.space.nvec.sum())
        if isinstance(self.space, spaces.Box | spaces.MultiBinary):
            return int(np.prod(self.space.shape))
        raise ValueError(
            "an objective that looks at actions needs an action space Discrete, MultiDiscrete, MultiBinary or Box, "
            f"got {self.space}"
        )

    @property
    def choices(self) -> tuple[int, ...]:
        """The sizes of the one-hot blocks that make up the code: one for each choice, none where it holds values.

        `(4,)` for Discrete(4), `(2, 3)` for MultiDiscrete([2, 3]), `()` for Box and MultiBinary.
        """
        if isinstance(self.space, spaces.Discrete):
            return (int(self.space.n),)
        if isinstance(self.space, spaces.MultiDiscrete):
            return tuple(int(n) for n in self.space.nvec.reshape(-1))
        return ()

    def scaled(self, actions: np.ndarray) -> np.ndarray:
        """Actions as an environment takes them -> as replay buffers store them: a bounded Box in [-1, 1]."""
        if not isinstance(self.space, spaces.Box):
            return actions
        low, high = self.space.low, self.space.high
        bounded = np.isfinite(low) & np.isfinite(high) & (high > low)
        width = np.where(bounded, high - low, 1.0)
        return np.where(bounded, 2.0 * (actions - np.where(bounded, low, 0.0)) / width - 1.0, actions).astype(
            np.float32
        )

    def encode(self, actions: np.ndarray | Tensor, device: torch.device) -> Tensor:
        """`(N, ...)` stored actions -> `(N, A)` float32; choices count from 0, as Stable-Baselines3's do."""
        tensor = torch.as_tensor(actions, device=device).reshape(len(actions), -1)
        if self.choices:
            chosen = tensor.long().unbind(1)
            return torch.cat([F.one_hot(one, n) for one, n in zip(chosen, self.choices, strict=True)], dim=1).float()
        return tensor.float()
