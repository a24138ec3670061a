"""Choose where windows come from: the host's replay buffer if it has one, else a ring buffer of our own."""

from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack

from .observations import Observer
from .stores import NoStore, ReplayRows, RingBuffer
from .stores.ring import Leaf


def make_store(model: BaseAlgorithm, observer: Observer, buffer_size: int) -> ReplayRows | RingBuffer:
    """The store for this model.

    Args:
        model: the host, with its environment set.
        observer: its observation space.
        buffer_size: frames a ring buffer holds over all environments.
    """
    replay = getattr(model, "replay_buffer", None)
    if replay is not None and ReplayRows.readable(replay):
        return ReplayRows(replay, model.get_vec_normalize_env())
    env = model.get_env()
    images = "image" in observer.kinds.values()
    n_frames = stacked_frames(env) if env is not None and images else 1
    leaves = {}
    for name, space in observer.leaves.items():
        shape = observer.shape(name)
        image = observer.kinds[name] == "image"
        stacked = image and n_frames > 1 and shape[0] % n_frames == 0
        # A host that normalises images' values itself hands on floats whatever its space says.
        dtype = np.dtype(np.float32) if model.get_vec_normalize_env() is not None and not image else space.dtype
        leaves[name] = Leaf(shape, np.dtype(dtype or np.float32), n_frames if stacked else 1)
    action = Leaf(model.action_space.shape or (), np.dtype(model.action_space.dtype or np.float32))
    return RingBuffer(buffer_size, model.n_envs, leaves, action)


def follow(
    store: ReplayRows | RingBuffer | NoStore, model: BaseAlgorithm, observer: Observer, buffer_size: int
) -> ReplayRows | RingBuffer | NoStore:
    """The store to go on with: the same, unless the host has another replay buffer or number of environments now."""
    if isinstance(store, NoStore):
        return store
    fresh = make_store(model, observer, buffer_size)
    if isinstance(fresh, ReplayRows) and isinstance(store, ReplayRows) and store.buffer is fresh.buffer:
        store.vec_normalize = fresh.vec_normalize
        return store
    if isinstance(fresh, RingBuffer) and isinstance(store, RingBuffer) and len(fresh.written) == len(store.written):
        return store
    return fresh


def check_room(store: ReplayRows | RingBuffer | NoStore, n_envs: int, batch_size: int, horizon: int) -> None:
    """Refuse a ring buffer that can never fill a batch, or never hold a window: it would silently train nothing.

    Raises:
        ValueError: the sentence says how many frames it takes.
    """
    if not isinstance(store, RingBuffer):
        return
    needed = max(batch_size, n_envs * (horizon + store.history + 1))
    if store.length * n_envs < needed:
        raise ValueError(
            f"buffer_size must hold a batch of {batch_size} and windows of k + 1 = {horizon + 1} observations in "
            f"each of {n_envs} environments, at least {needed} frames, got {store.length * n_envs}"
        )


def stacked_frames(env: VecEnv) -> int:
    """How many frames an observation stacks: `VecFrameStack`'s, or gymnasium's `FrameStackObservation`'s, or 1."""
    inner: Any = env
    while isinstance(inner, VecEnvWrapper):
        if isinstance(inner, VecFrameStack):
            return int(inner.stacked_obs.n_stack)
        inner = inner.venv
    # Asked first: a worker process of SubprocVecEnv does not survive an attribute that is not there.
    return int(inner.get_attr("stack_size", indices=[0])[0]) if inner.has_attr("stack_size") else 1
