"""Any environment seen through the images it draws: classic control by pygame, MuJoCo by OpenGL."""

import os
import sys
from typing import Any

import gymnasium
from gymnasium.wrappers import AddRenderObservation, GrayscaleObservation, ResizeObservation

from ...core.check import whole


def pixels(task: str, size: int = 84, grayscale: bool = True, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Return an environment whose observation is its own rendered image, `(size, size, 1 or 3)` uint8.

    Gymnasium's wrappers do the work: `AddRenderObservation`, `ResizeObservation` (OpenCV, by area) and
    `GrayscaleObservation`. One image shows no velocity, so stack a few (`frame_stack` of the config).

    MuJoCo draws through EGL where there is no display: on Linux without `DISPLAY`, `MUJOCO_GL` is set to `egl` for this
    process (and pygame's `SDL_VIDEODRIVER` to `dummy`) unless it is set already. `width=84, height=84` lets MuJoCo draw
    no more than is kept.

    Args:
        task: id of an environment that can render `rgb_array`.
        size: side of the image in pixels, an integer >= 1.
        grayscale: one channel of luminance in place of three colours.
        kwargs: what the environment itself takes.

    Raises:
        ValueError: a number out of range, an environment that cannot draw, or OpenGL that does not start.
    """
    size = whole("size", size, 1)
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame's; else it complains of the missing display
    env: gymnasium.Env[Any, Any] = gymnasium.make(task, render_mode="rgb_array", disable_env_checker=True, **kwargs)
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        raise ValueError(f"task must be an environment that renders rgb_array, got {task!r}")
    try:
        env = AddRenderObservation(env, render_only=True)  # renders at once
    except gymnasium.error.DependencyNotInstalled:
        raise
    except Exception as error:  # each OpenGL backend fails in its own way: ImportError, AttributeError, FatalError, …
        if not type(env.unwrapped).__module__.startswith(("gymnasium.envs.mujoco", "gymnasium_robotics")):
            raise
        backend = os.environ.get("MUJOCO_GL", "not set")
        raise ValueError(
            f"{task} is drawn by MuJoCo, which needs OpenGL without a display (the system's libegl1 and libgl1, "
            f"MUJOCO_GL=egl; or libosmesa6, MUJOCO_GL=osmesa); with MUJOCO_GL {backend} it ended in "
            f"{type(error).__name__}: {error}"
        ) from error
    env = ResizeObservation(env, (size, size))
    return GrayscaleObservation(env, keep_dim=True) if grayscale else env
