"""Environments of a run, built from plain arguments: the `_target_` of `configs/env/*.yaml`."""

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecTransposeImage

from ..clrl import envs  # noqa: F401  (registers our own environments)
from ..clrl.envs.goal_success import with_goal_success

Factory = Callable[..., gymnasium.Env[Any, Any]]
ENVS_EXTRA = ("cv2", "gymnasium_robotics", "minigrid", "mujoco", "pygame")  # modules that `contraux[envs]` installs


def make(
    id: str | Factory,
    *,
    seed: int,
    n_envs: int = 1,
    kwargs: Mapping[str, Any] | None = None,
    frame_stack: int = 1,
    atari: bool = False,
) -> VecEnv:
    """Return `n_envs` monitored copies of an environment, seeded, images channel first.

    A goal-conditioned one reports whether its goal was reached as Stable-Baselines3 expects it (`is_success`).

    Args:
        id: a Gymnasium id (`"module:Name-v0"` imports the module first) or a callable that returns an environment.
        seed: integer >= 0; copy i starts from `seed + i`.
        n_envs: number of copies, an integer >= 1, stepped in this process.
        kwargs: what the environment itself takes.
        frame_stack: how many consecutive frames make one observation, an integer >= 1.
        atari: True adds the usual Atari preprocessing (`stable_baselines3.common.atari_wrappers.AtariWrapper`:
            84x84 grey, skip 4, reward signs, a lost life ends an episode); the returns recorded stay those of the game.

    Raises:
        ValueError: an id Gymnasium does not know (with the nearest it does), a number out of range, or a missing extra.
    """
    for name, value in (("env.n_envs", n_envs), ("env.frame_stack", frame_stack)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    if atari:
        register_atari()
    if isinstance(id, str) and ":" not in id:
        check_id(id)
    build = make_atari_env if atari else functools.partial(make_vec_env, wrapper_class=with_goal_success)
    try:
        env: VecEnv = build(id, n_envs=n_envs, seed=seed, env_kwargs=dict(kwargs or {}))
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        module = getattr(error if isinstance(error, ModuleNotFoundError) else error.__cause__, "name", None)
        if module not in ENVS_EXTRA:
            raise ValueError(f"{id} needs a package that is not installed: {error}") from error
        raise ValueError(f"{id} needs {module}, which is not installed: pip install 'contraux[envs]'") from error
    if frame_stack > 1:
        env = VecFrameStack(env, frame_stack)
    leaves = (
        env.observation_space.values() if isinstance(env.observation_space, spaces.Dict) else [env.observation_space]
    )
    images = [leaf for leaf in leaves if isinstance(leaf, spaces.Box) and is_image_space(leaf)]
    if any(not is_image_space_channels_first(image) for image in images):
        env = VecTransposeImage(env)
    return env


def register_atari() -> None:
    """Make the `ALE/` ids known; a sentence names the extra where ale-py or OpenCV is missing."""
    try:
        import ale_py
        import cv2  # noqa: F401
    except ImportError as error:
        raise ValueError(f"Atari needs {error.name}, which is not installed: pip install 'contraux[atari]'") from error
    gymnasium.register_envs(ale_py)
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner


def check_id(id: str, also: Iterable[str] = ()) -> None:
    """Raise ValueError, naming the nearest ids (and options, `also`), unless Gymnasium knows this one.

    An id may leave out its version.
    """
    known = list(gymnasium.registry)
    if any(id in (name, name.rpartition("-v")[0]) for name in known):
        return
    near = difflib.get_close_matches(id, [*also, *known], n=3, cutoff=0.5)
    hint = f"the nearest are {', '.join(near)}" if near else "see gymnasium.pprint_registry()"
    raise ValueError(f"env must be an option or an id Gymnasium knows, got {id!r}: {hint}")


def group_override(value: str, options: Iterable[str] = ()) -> list[str]:
    """Return the overrides that stand for `env=<Gymnasium id>`: the option of its kind, and the id.

    A comma-separated list, as a sweep gives it, becomes a sweep over ids of one kind.

    Args:
        value: what was given for `env`.
        options: the group's options, to name where one of them is nearer than any id.

    Raises:
        ValueError: for an id Gymnasium does not know, or a list that mixes Atari with others.
    """
    ids = value.split(",")
    atari = {id.startswith("ALE/") for id in ids}
    if len(atari) > 1:
        raise ValueError(f"a sweep over env must not mix ALE/ ids with others, got {value!r}: run one sweep for each")
    if any(id.startswith(("MiniGrid-", "BabyAI-")) for id in ids):
        return ["env=minigrid", f"env.kwargs.task={value}"]
    if True in atari:
        register_atari()
    for id in ids:
        if ":" not in id:
            check_id(id, options)
    return [f"env={'atari' if True in atari else 'gym'}", f"env.id={value}"]
