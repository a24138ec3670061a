"""MiniGrid as Stable-Baselines3 can take it: what the agent sees as one vector of zeros and ones."""

import difflib
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

KINDS = (11, 6, 4)
"""How many objects, colours and states a cell can have (states: of a door, or the direction of an agent)."""


class OneHotGrid(
    gymnasium.ObservationWrapper[np.ndarray, Any, dict[str, Any]],
    gymnasium.utils.RecordConstructorArgs,
):
    """MiniGrid's view, `(H, W, 3)` numbers of object, colour and state, as `(H * W * 21,)` uint8 one-hot values.

    The agent's direction is left out, since the view turns with it, and so is the mission, which is one sentence in the
    tasks that ask for one thing only.

    Args:
        env: environment whose Dict observation has an `image` of three numbers a cell.

    Raises:
        ValueError: when the observation has none.
    """

    def __init__(self, env: gymnasium.Env[dict[str, Any], Any]) -> None:
        space = env.observation_space
        image = space.spaces.get("image") if isinstance(space, spaces.Dict) else None
        if image is None or image.shape is None or image.shape[-1:] != (len(KINDS),):
            raise ValueError(f"OneHotGrid needs a Dict observation with an image of 3 numbers a cell, got {space}")
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        self._tables = [np.eye(n, dtype=np.uint8) for n in KINDS]
        self.observation_space = spaces.Box(0, 1, (int(np.prod(image.shape[:-1])) * sum(KINDS),), np.uint8)

    def observation(self, observation: dict[str, Any]) -> np.ndarray:
        """Return the one-hot values, cell by cell: object, colour, state."""
        cells = observation["image"].reshape(-1, len(KINDS))
        return np.concatenate([table[cells[:, i]] for i, table in enumerate(self._tables)], axis=1).reshape(-1)


def minigrid(task: str, **kwargs: Any) -> OneHotGrid:
    """Return a MiniGrid environment seen through :class:`OneHotGrid`.

    Args:
        task: its id in MiniGrid, such as `MiniGrid-DoorKey-8x8-v0`.
        kwargs: what that environment takes.

    Raises:
        ValueError: MiniGrid is not installed, or does not know the task (the sentence names the nearest).
    """
    try:
        import minigrid  # noqa: F401  (registers its environments)
    except ImportError as error:
        raise ValueError("MiniGrid needs minigrid, which is not installed: pip install 'contraux[envs]'") from error
    known = [name for name in gymnasium.registry if name.startswith(("MiniGrid-", "BabyAI-"))]
    if task not in known:
        near = ", ".join(difflib.get_close_matches(str(task), known, n=3, cutoff=0.0))
        raise ValueError(f"task must be an id of MiniGrid, got {task!r}: the nearest are {near}")
    return OneHotGrid(gymnasium.make(task, disable_env_checker=True, **kwargs))
