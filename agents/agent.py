"""One SB3 or sb3-contrib model from plain arguments: what `configs/agent/*.yaml` describes."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv

from ..clrl import ContrastiveAuxiliary, vector_encoder
from ..clrl.exploration import NoveltyBonus
from ..clrl.stores.frame_replay import FrameNStepReplayBuffer, FrameReplayBuffer, storable
from .auxiliary import with_auxiliary


def make_agent(
    algorithm: type[BaseAlgorithm],
    env: VecEnv,
    *,
    auxiliary: ContrastiveAuxiliary | None = None,
    exploration: NoveltyBonus | None = None,
    encoder: Callable[..., dict[str, Any]] | None = None,
    policy: str | None = None,
    policy_kwargs: Mapping[str, Any] | None = None,
    **hyperparameters: Any,
) -> BaseAlgorithm:
    """Return `algorithm(policy, env, ...)` with a policy that suits the observations and an encoder that can learn.

    Args:
        algorithm: class of the model.
        env: its training environments.
        auxiliary: what the model trains with beside its own objective, if anything.
        exploration: what rewards it beside the environment, if anything; with neither it is the plain algorithm.
        encoder: makes `policy_kwargs` with a pretrained encoder from the others, as a partial of
            `contraux.clrl.pretrained_encoder` does; None leaves the encoder to `policy_kwargs`.
        policy: alias of a policy; None chooses MultiInput for Dict observations, Cnn for images, else Mlp.
        policy_kwargs: arguments of the policy. Without images they are laid over `contraux.clrl.vector_encoder()`,
            since SB3's own encoder of vectors has no parameters, which no objective could train.
        replay_buffer_class: of an off-policy algorithm; None lets images be kept frame by frame, which changes nothing
            but the memory it takes (`contraux.clrl.FrameReplayBuffer`), and leaves all else to the algorithm.
        hyperparameters: what else the algorithm takes; lists become tuples (`train_freq: [1, episode]`).

    Raises:
        ValueError: an argument the algorithm does not take (with the nearest it does), or one that it refuses.
    """
    check_arguments(algorithm, hyperparameters)
    policy = policy or suitable_policy(algorithm, env.observation_space)
    policy_kwargs = dict(policy_kwargs or {})
    hyperparameters = {name: tuple(x) if isinstance(x, list) else x for name, x in hyperparameters.items()}
    hyperparameters |= suitable_replay(algorithm, env.observation_space, hyperparameters)
    if encoder is None and not has_images(env.observation_space):
        policy_kwargs = {**vector_encoder(), **policy_kwargs}
    own = {} if auxiliary is None and exploration is None else {"auxiliary": auxiliary, "exploration": exploration}
    kind: Any = with_auxiliary(algorithm) if own else algorithm
    try:
        if encoder is not None:
            # An algorithm may choose its policy's optimizer (A2C does), on which the encoder's mode may build.
            bare: Any = algorithm
            unmade = bare(policy, env, policy_kwargs=policy_kwargs, _init_setup_model=False, **hyperparameters)
            policy_kwargs = encoder(**unmade.policy_kwargs)
        return kind(policy, env, policy_kwargs=policy_kwargs, **hyperparameters, **own)
    except AssertionError as error:  # SB3 states what it does not support this way
        raise ValueError(f"{algorithm.__name__}: {error}") from error


def check_arguments(algorithm: type[BaseAlgorithm], arguments: Mapping[str, Any]) -> None:
    """Raise ValueError for an argument the algorithm does not take, or for text where its default is a number."""
    accepted = inspect.signature(algorithm).parameters
    for name, value in arguments.items():
        if name not in accepted:
            near = difflib.get_close_matches(name, accepted, n=3)
            hint = f"the nearest are {', '.join(near)}" if near else f"it takes {', '.join(accepted)}"
            raise ValueError(f"{algorithm.__name__} takes no argument {name!r}: {hint}")
        default = accepted[name].default
        if isinstance(default, int | float) and isinstance(value, str):
            kind = "true or false" if isinstance(default, bool) else "a number"
            raise ValueError(f"agent.{name} must be {kind}, got {value!r}")


def suitable_policy(algorithm: type[BaseAlgorithm], space: spaces.Space[Any]) -> str:
    """Return the alias of the algorithm's policy for this observation space; ValueError where it has none."""
    kind = "MultiInput" if isinstance(space, spaces.Dict) else "Cnn" if has_images(space) else "Mlp"
    for alias in algorithm.policy_aliases:
        if alias.startswith(kind):
            return alias
    raise ValueError(
        f"{algorithm.__name__} has no {kind} policy for observations {space}, only "
        f"{', '.join(algorithm.policy_aliases)}: choose another agent"
    )


def suitable_replay(
    algorithm: type[BaseAlgorithm], space: spaces.Space[Any], hyperparameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments that keep images frame by frame, where nothing else is asked for and the algorithm can."""
    asked = hyperparameters.get("replay_buffer_class") is not None or hyperparameters.get("optimize_memory_usage")
    if asked or "replay_buffer_class" not in inspect.signature(algorithm).parameters or not storable(space):
        return {}
    steps = hyperparameters.get("n_steps", 1)
    if steps == 1:
        return {"replay_buffer_class": FrameReplayBuffer}
    gamma = hyperparameters.get("gamma", 0.99)
    own = {"n_steps": steps, "gamma": gamma, **(hyperparameters.get("replay_buffer_kwargs") or {})}
    # The buffer computes the returns; the algorithm's own n_steps only says which buffer to choose.
    return {"replay_buffer_class": FrameNStepReplayBuffer, "replay_buffer_kwargs": own, "n_steps": 1}


def has_images(space: spaces.Space[Any]) -> bool:
    """Return whether an observation is an image or, in a Dict, has one."""
    leaves = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    return any(is_image_space(leaf) for leaf in leaves)
