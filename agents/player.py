"""A random policy and what it sees, one step at a time. Shape legend: H x W size, C channels, D entries."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from .environments import Factory, check_id, register_atari

ATARI_SKIP = 4  # frames an action lasts, where nothing is said
CHANNELS = (1, 3, 4)


class Player:
    """Plays a random policy in an environment that shows images: its observations, or what it renders.

    Args:
        id: a Gymnasium id, or a callable that returns an environment.
        kwargs: what the environment itself takes.
        seed: of environment and actions, integer >= 0.
        frame_skip: how often each action is repeated, integer >= 1; None: 4 for Atari, 1 for others.

    Raises:
        ValueError: an unknown id, a package that is missing, or an environment that shows no images.
    """

    def __init__(self, id: str | Factory, kwargs: Mapping[str, Any], seed: int, frame_skip: int | None = None) -> None:
        atari = isinstance(id, str) and id.startswith("ALE/")
        arguments = {**({"frameskip": 1} if atari else {}), **kwargs}  # v5 ids would skip 4 frames, unseen
        env = make(id, **arguments)
        self.renders = not is_image(env.observation_space)
        if self.renders:
            env.close()
            if "rgb_array" not in env.metadata.get("render_modes", ()):
                raise ValueError(
                    f"an environment must show images to be recorded, but {id} observes {env.observation_space} and "
                    f"renders no rgb_array, got render modes {list(env.metadata.get('render_modes', ()))}"
                )
            env = make(id, render_mode="rgb_array", **arguments)
        self.env, self.seed = env, seed
        self.emulator = getattr(env.unwrapped, "ale", None)
        self.skip = frame_skip or (1 if self.emulator is None else ATARI_SKIP)
        env.action_space.seed(seed)
        self._observation, _ = env.reset(seed=seed)

    def see(self) -> dict[str, np.ndarray]:
        """Return what there is to record before the next action: `frames` `(H, W, C)` uint8, and others by their file.

        Raises:
            ValueError: rendering needs a package that is missing, or gives no image.
        """
        space, seen = self.env.observation_space, {}
        seen["frames"] = channels_last(self._rendered() if self.renders else np.asarray(self._observation))
        if self.renders and space.is_np_flattenable:
            seen["observations"] = spaces.flatten(space, self._observation).astype(np.float32)  # type: ignore[union-attr]
        if self.emulator is not None:
            seen["ram"] = np.array(self.emulator.getRAM())
        return seen

    def act(self) -> tuple[np.ndarray, float, bool]:
        """Take a random action, as often as an action is repeated; begin anew where an episode ends.

        Returns:
            The action, the sum of its rewards, and whether it ended the episode.
        """
        action, total, before = self.env.action_space.sample(), 0.0, self._observation
        for _ in range(self.skip):
            before = self._observation
            self._observation, reward, terminated, truncated, _ = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        ended = terminated or truncated
        if ended:
            self._observation, _ = self.env.reset()
        elif self.emulator is not None and self.skip > 1 and not self.renders:
            self._observation = np.maximum(before, self._observation)
        flat = self.env.action_space.is_np_flattenable and not isinstance(action, np.ndarray | np.integer)
        recorded = spaces.flatten(self.env.action_space, action) if flat else action
        return np.asarray(recorded), total, ended

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _rendered(self) -> np.ndarray:
        try:
            image = self.env.render()
        except gymnasium.error.DependencyNotInstalled as error:
            raise ValueError(f"rendering needs a package that is not installed: {error}") from error
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            raise ValueError(f"an environment must render an image, an array (H, W, 3), got {type(image).__name__}")
        return image


def make(id: str | Factory, **arguments: Any) -> gymnasium.Env[Any, Any]:
    """Return an environment by id or from a callable; what Gymnasium or the environment objects to is a ValueError."""
    if isinstance(id, str) and id.startswith("ALE/"):
        register_atari()
    if isinstance(id, str) and ":" not in id:
        check_id(id)
    try:
        return gymnasium.make(id, **arguments) if isinstance(id, str) else id(**arguments)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(f"{id} needs a package that is not installed: {error}") from error
    except (gymnasium.error.Error, TypeError, RuntimeError) as error:
        raise ValueError(f"{id} cannot be made with {arguments}: {error}") from error


def is_image(space: spaces.Space[Any]) -> bool:
    """Return whether observations are images: a Box of uint8 with two or three axes."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def channels_last(image: np.ndarray) -> np.ndarray:
    """Return `(H, W, C)` of an image `(H, W)`, `(H, W, C)` or, where only the first axis can be the channels, first."""
    if image.ndim == 2:
        return image[..., None]
    first_only = image.shape[0] in CHANNELS and image.shape[-1] not in CHANNELS
    return image.transpose(1, 2, 0) if first_only else image
