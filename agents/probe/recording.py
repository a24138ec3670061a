"""What an agent sees, and the state behind it. Shape legend: E environments, N frames, V variables."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from ...clrl.host_store import stacked_frames
from ...clrl.observations import Observer
from ...clrl.stores import Observations, RingBuffer
from ...clrl.stores.ring import Leaf, RingWindow
from ...core.check import number, whole
from .labels import Labels, visible
from .variables import Variable


class Agent(Protocol):
    """Who plays while frames are collected: any policy or algorithm of Stable-Baselines3."""

    def predict(self, observation: Any, *, deterministic: bool = False) -> tuple[np.ndarray, Any]:
        """Return actions `(E, ...)`, and a state that is not used."""
        ...


@dataclass(frozen=True)
class Recording:
    """Frames in the order of time, each stored once however many of them one observation stacks.

    Attributes:
        ring: where they are.
        observer: the way from them to an encoder's input.
        env: `(N,)` the environment of each observation.
        row: `(N,)` its row in the ring.
        episode: `(N,)` the number of its episode, over all environments; a lost life does not end one.
        labels: `(N, V)`: the state that belongs to the observation; V = 0 where nobody asked.
        variables: what the columns are.
    """

    ring: RingBuffer
    observer: Observer
    env: np.ndarray
    row: np.ndarray
    episode: np.ndarray
    labels: np.ndarray
    variables: list[Variable]

    def __len__(self) -> int:
        return len(self.row)

    def observations(self, indices: np.ndarray) -> Observations:
        """Return raw observations by leaf, `(len(indices), ...)`, images channels first."""
        return RingWindow(self.ring, self.env[indices], self.row[indices]).observation(0)

    def inputs(self, indices: np.ndarray) -> Tensor | dict[str, Tensor]:
        """Return what an encoder takes: on the device, preprocessed as Stable-Baselines3 does it."""
        return self.observer.encoder_input(self.observations(indices), {}, torch.Generator())

    def frame(self, index: int) -> bytes:
        """Return the newest frame of one observation, as stored: equal for equal frames only."""
        return b"".join(
            frames[self.env[index], self.row[index] % self.ring.length].tobytes()
            for frames in self.ring.frames.values()
        )


def record(
    make_env: Callable[..., VecEnv],
    id: str,
    *,
    frames: int,
    seed: int,
    labels: str | None = None,
    agent: Agent | None = None,
    epsilon: float = 1.0,
    device: torch.device | str = "cpu",
) -> Recording:
    """Play, and keep what was seen before each action, with the state at that moment.

    Args:
        make_env: makes the environments from a seed.
        id: their Gymnasium id.
        frames: how many observations over all environments, >= 1; rounded up to a multiple of E.
        seed: of environments and actions.
        labels: see :class:`~contraux.agents.probe.labels.Labels`; None records no state.
        agent: who acts; None: nobody, actions are random.
        epsilon: share of random actions, where there is an agent.
        device: where encoders are.

    Raises:
        ValueError: a number out of range, or labels that the environment does not have.
    """
    whole("frames", frames, 1)
    number("epsilon", epsilon, 0.0, 1.0)
    env = make_env(seed=seed)
    try:
        reader = None if labels is None else Labels(labels, env, id)
        space, only = visible(env.observation_space, None if reader is None else reader.leaf)
        observer = Observer(space, True, torch.device(device), env.action_space)
        steps = -(-frames // env.num_envs)
        ring = _ring(env, observer, steps)
        act = _Actions(env, seed, agent, epsilon)
        rows, episodes, read = _play(env, ring, observer, only, reader, act, steps)
    finally:
        env.close()
    return Recording(
        ring,
        observer,
        env=np.tile(np.arange(env.num_envs), steps),
        row=np.concatenate(rows),
        episode=np.concatenate(episodes),
        labels=np.concatenate(read) if read else np.empty((steps * env.num_envs, 0)),
        variables=reader.variables if reader else [],
    )


def _play(
    env: VecEnv,
    ring: RingBuffer,
    observer: Observer,
    only: str | None,
    reader: Labels | None,
    act: "_Actions",
    steps: int,
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    rows, episodes, read = [], [], []
    seen: Any = env.reset()
    infos: list[Any] = list(env.unwrapped.reset_infos)
    episode = np.arange(env.num_envs)
    for _ in range(steps):
        if reader is not None:
            read.append(reader.read(seen, infos))
        actions = act(seen)
        now, rewards, dones, infos = env.step(actions)
        ring.add(observer.split(seen if only is None else seen[only]), dones, observer.actions.scaled(actions), rewards)
        rows.append((ring.written - 1) % ring.length)
        episodes.append(episode.copy())
        ended = np.array(["episode" in info for info in infos])  # Monitor's word: the game's end, not a life's
        episode[ended] = episode.max() + 1 + np.arange(ended.sum())
        began = env.unwrapped.reset_infos
        infos = [began[i] if done else infos[i] for i, done in enumerate(dones)]
        seen = now
    return rows, episodes, read


class _Actions:
    """Actions of a policy, or random ones, from a generator of their own."""

    def __init__(self, env: VecEnv, seed: int, agent: Agent | None, epsilon: float) -> None:
        self.space, self.n, self.agent, self.epsilon = copy.deepcopy(env.action_space), env.num_envs, agent, epsilon
        self.space.seed(seed)
        self.random = np.random.default_rng(seed)

    def __call__(self, seen: Any) -> np.ndarray:
        drawn = np.stack([self.space.sample() for _ in range(self.n)])
        if self.agent is None:
            return drawn
        chosen, _ = self.agent.predict(seen, deterministic=False)
        at_random = self.random.random(self.n) < self.epsilon
        return np.where(at_random.reshape(-1, *[1] * (drawn.ndim - 1)), drawn, chosen)


def _ring(env: VecEnv, observer: Observer, steps: int) -> RingBuffer:
    """Return a ring that never overwrites: each step may write the older frames of a stack along."""
    n_frames = stacked_frames(env)
    leaves = {}
    for name, space in observer.leaves.items():
        shape = observer.shape(name)
        stacked = observer.kinds[name] == "image" and n_frames > 1 and shape[0] % n_frames == 0
        leaves[name] = Leaf(shape, np.dtype(space.dtype or np.float32), n_frames if stacked else 1)
    history = max(leaf.stack for leaf in leaves.values())
    action = Leaf(env.action_space.shape or (), np.dtype(env.action_space.dtype or np.float32))
    return RingBuffer((max(steps, 2) * history + 2) * env.num_envs, env.num_envs, leaves, action)
