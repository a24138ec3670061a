"""Every host the seam is tested on, on settings small enough for seconds."""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import sb3_contrib
import stable_baselines3
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from contraux.clrl import vector_encoder

ENCODER = vector_encoder(hidden=(16,), features_dim=16)


class Host(NamedTuple):
    algorithm: type
    env: str
    kwargs: dict[str, Any]
    policy: str = "MlpPolicy"
    policy_kwargs: dict[str, Any] = {}
    n_envs: int = 2
    steps: int = 160

    def make(self, **overrides):
        env = make_vec_env(self.env, n_envs=self.n_envs, seed=3)
        settings = {"seed": 1, "device": "cpu", "policy_kwargs": {**ENCODER, **self.policy_kwargs}, **self.kwargs}
        return self.algorithm(self.policy, env, **{**settings, **overrides})

    def load(self, path, algorithm=None):
        return (algorithm or self.algorithm).load(path, env=make_vec_env(self.env, n_envs=self.n_envs, seed=3))


ON_POLICY = {"n_steps": 32}
OFF_POLICY = {"learning_starts": 40, "batch_size": 16, "buffer_size": 500, "train_freq": 4, "gradient_steps": 4}
SEPARATE = {"share_features_extractor": False}
SHARED = {"share_features_extractor": True}

HOSTS = {
    "PPO": Host(stable_baselines3.PPO, "CartPole-v1", {**ON_POLICY, "batch_size": 16, "n_epochs": 2}),
    "PPO-separate": Host(
        stable_baselines3.PPO, "CartPole-v1", {**ON_POLICY, "batch_size": 16, "n_epochs": 2}, policy_kwargs=SEPARATE
    ),
    "A2C": Host(stable_baselines3.A2C, "CartPole-v1", {"n_steps": 8}),
    "DQN": Host(stable_baselines3.DQN, "CartPole-v1", OFF_POLICY),
    "SAC": Host(stable_baselines3.SAC, "Pendulum-v1", OFF_POLICY),
    "SAC-shared": Host(stable_baselines3.SAC, "Pendulum-v1", OFF_POLICY, policy_kwargs=SHARED),
    "TD3": Host(stable_baselines3.TD3, "Pendulum-v1", OFF_POLICY),
    "TD3-shared": Host(stable_baselines3.TD3, "Pendulum-v1", OFF_POLICY, policy_kwargs=SHARED),
    "DDPG": Host(stable_baselines3.DDPG, "Pendulum-v1", OFF_POLICY),
    "TQC": Host(sb3_contrib.TQC, "Pendulum-v1", OFF_POLICY),
    "TQC-shared": Host(sb3_contrib.TQC, "Pendulum-v1", OFF_POLICY, policy_kwargs=SHARED),
    "QRDQN": Host(sb3_contrib.QRDQN, "CartPole-v1", OFF_POLICY),
    "CrossQ": Host(sb3_contrib.CrossQ, "Pendulum-v1", OFF_POLICY),
    "RecurrentPPO": Host(
        sb3_contrib.RecurrentPPO, "CartPole-v1", {**ON_POLICY, "batch_size": 16, "n_epochs": 2}, policy="MlpLstmPolicy",
        policy_kwargs={"lstm_hidden_size": 16},
    ),
    "MaskablePPO": Host(
        sb3_contrib.MaskablePPO, "contraux-tests/MaskedCartPole-v0", {**ON_POLICY, "batch_size": 16, "n_epochs": 2}
    ),
    "TRPO": Host(sb3_contrib.TRPO, "CartPole-v1", {**ON_POLICY, "batch_size": 16}),
}  # fmt: skip


class MaskedCartPole(gym.Wrapper):
    """CartPole in which both actions are always allowed, and the mask says so."""

    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))

    def action_masks(self):
        return np.array([True, True])


class Ball(gym.Env):
    """A bright square that moves over a dark image; episodes end after 20 steps."""

    def __init__(self, size=36, continuous=False):
        self.observation_space = spaces.Box(0, 255, (size, size, 1), np.uint8)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32) if continuous else spaces.Discrete(2)
        self.size = size

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.clock = self.np_random.integers(4, self.size - 8, 2), 0
        return self._image(), {}

    def step(self, action):
        self.position = np.clip(self.position + self.np_random.integers(-2, 3, 2), 0, self.size - 4)
        self.clock += 1
        reward = float(np.asarray(action).reshape(-1)[0]) * np.sign(self.position[0] - self.size / 2)
        return self._image(), float(reward), False, self.clock >= 20, {}

    def _image(self):
        image = np.zeros((self.size, self.size, 1), np.uint8)
        image[self.position[0] : self.position[0] + 4, self.position[1] : self.position[1] + 4] = 255
        return image


class BallWithState(Ball):
    """The same, seen as an image and as a vector."""

    def __init__(self, size=36):
        super().__init__(size)
        self.observation_space = spaces.Dict(
            {"image": self.observation_space, "state": spaces.Box(-10, 10, (3,), np.float32)}
        )

    def _image(self):
        state = np.array([*(self.position / self.size), self.clock / 20], np.float32)
        return {"image": super()._image(), "state": state}


gym.register("contraux-tests/MaskedCartPole-v0", MaskedCartPole, max_episode_steps=500)
gym.register("contraux-tests/Ball-v0", Ball)
gym.register("contraux-tests/BallWithState-v0", BallWithState)
