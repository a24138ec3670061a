"""Every environment config: it makes an environment that steps and stacks, and the policy that suits it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from gymnasium import spaces
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.buffers import ReplayBuffer

import contraux
from contraux.agents.agent import make_agent
from contraux.agents.environments import make
from contraux.clrl import FrameReplayBuffer, VectorEncoder
from contraux.clrl.envs import minatar, pixels

IMAGE = (3, 84, 84)
READY = {  # name: shape of an observation, number of discrete actions or shape of continuous ones
    "acrobot": ((6,), 3),
    "boxing": ((4, 84, 84), 18),
    "cartpole": ((4,), 2),
    "cartpole_pixels": (IMAGE, 2),
    "halfcheetah": ((17,), (6,)),
    "halfcheetah_pixels": (IMAGE, (6,)),
    "hopper": ((11,), (3,)),
    "hopper_pixels": (IMAGE, (3,)),
    "minatar": ((10, 10, 4), 3),
    "noisy_acrobot": ((16,), 3),
    "noisy_cartpole": ((64,), 2),
    "noisy_pendulum": ((23,), (1,)),
    "pendulum": ((3,), (1,)),
    "pendulum_pixels": (IMAGE, (1,)),
    "pixels": (IMAGE, 2),
}
# Need an id, or have tests of their own.
OTHERS = {"atari", "bit_flipping", "fetch_reach", "gym", "minigrid", "point_maze"}


def from_config(name, *overrides):
    with initialize_config_module("contraux.configs", version_base="1.3"):
        return instantiate(compose("rl", [f"env={name}", *overrides]).env)(seed=0)


def test_no_config_is_forgotten():
    names = {path.stem for path in (Path(contraux.__file__).parent / "configs" / "env").glob("*.yaml")}
    assert names <= set(READY) | OTHERS


@pytest.mark.parametrize("name", READY)
def test_makes_steps_and_gets_the_policy_that_suits(name):
    shape, actions = READY[name]
    env = from_config(name)
    assert env.observation_space.shape == shape
    space = env.action_space
    assert (space.n if isinstance(space, spaces.Discrete) else space.shape) == actions
    agent = make_agent(PPO, env, n_steps=4, batch_size=4, seed=0, device="cpu")
    image = len(shape) == 3 and shape[1:] == (84, 84)
    assert isinstance(agent.policy.features_extractor, VectorEncoder) != image
    observations = env.reset()
    action, _ = agent.predict(observations)
    following, rewards, dones, _ = env.step(action)
    assert following.shape == (env.num_envs, *shape) and rewards.shape == dones.shape == (env.num_envs,)
    assert following.dtype == env.observation_space.dtype
    env.close()


def test_pixels_show_what_moves_and_are_stacked_oldest_first():
    env = from_config("cartpole_pixels", "env.n_envs=1")
    first = env.reset()[0]
    assert first.dtype == np.uint8 and first.max() > 200 and first.std() > 5
    second = env.step(np.array([1]))[0][0]
    np.testing.assert_array_equal(second[1], first[2])
    for _ in range(6):
        last = env.step(np.array([1]))[0][0]
    assert (last[2] != second[2]).sum() > 20


def test_pixels_in_colour_and_of_another_size():
    env = pixels("Pendulum-v1", size=32, grayscale=False, g=5.0)
    assert env.observation_space == spaces.Box(0, 255, (32, 32, 3), np.uint8)
    assert env.unwrapped.g == 5.0
    first, _ = env.reset(seed=4)
    np.testing.assert_array_equal(first, env.reset(seed=4)[0])


def test_any_vector_environment_stacks_too():
    env = from_config("acrobot", "env.frame_stack=2")
    assert env.reset().shape == (8, 12)


def test_minatar_repeats_itself_from_a_seed_and_takes_arguments():
    def rollout():
        env = minatar("seaquest", sticky_action_prob=0.0)
        seen = [env.reset(seed=5)[0]]
        for step in range(60):
            seen.append(env.step(step % env.action_space.n)[0])
        return np.stack(seen)

    np.testing.assert_array_equal(rollout(), rollout())


@pytest.mark.parametrize(
    ("function", "argument", "sentence"),
    [
        (minatar, {"game": "brakout"}, "got 'brakout': the nearest is breakout"),
        (pixels, {"task": "CartPole-v1", "size": 0}, "size must be a whole number >= 1, got 0"),
        (pixels, {"task": "contraux/NoisyCartPole-v1", "size": "big"}, "size must be .*, got 'big'"),
    ],
)
def test_wrong_arguments_get_a_sentence(function, argument, sentence):
    with pytest.raises(ValueError, match=sentence):
        function(**argument)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("cartpole_pixels", "pygame", "envs"),
        ("cartpole_pixels", "cv2", "envs"),
        ("hopper", "mujoco", "envs"),
        ("hopper_pixels", "mujoco", "envs"),
        ("minatar", "minatar", "minatar"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, name, module, extra):
    for loaded in list(sys.modules):
        if loaded.startswith((f"{module}.", "gymnasium.envs.mujoco")):
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    node = yaml.safe_load((Path(contraux.__file__).parent / "configs" / "env" / f"{name}.yaml").read_text())
    with pytest.raises(ValueError, match=rf"needs {module}, which is not installed: pip install 'contraux\[{extra}\]'"):
        make(node.get("id", "contraux/Pixels-v1"), seed=0, kwargs=node["kwargs"])


def test_mujoco_without_opengl_says_what_it_needs():
    code = "from contraux.clrl.envs import pixels; pixels('Hopper-v5')"
    without_display = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**without_display, "MUJOCO_GL": "glfw"},
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: Hopper-v5 is drawn by MuJoCo, which needs OpenGL"), done.stderr
    assert "MUJOCO_GL=egl" in last


def test_images_are_kept_frame_by_frame_unless_another_buffer_is_asked_for():
    env = from_config("boxing", "env.n_envs=1")
    assert type(make_agent(DQN, env, buffer_size=50).replay_buffer) is FrameReplayBuffer
    agent = make_agent(DQN, env, buffer_size=50, n_steps=3, gamma=0.5)
    assert (agent.replay_buffer.n_steps, agent.replay_buffer.gamma) == (3, 0.5)
    assert type(make_agent(DQN, env, buffer_size=50, replay_buffer_class=ReplayBuffer).replay_buffer) is ReplayBuffer
    assert type(make_agent(DQN, make("CartPole-v1", seed=0), buffer_size=50).replay_buffer) is ReplayBuffer


def test_atari_keeps_frames_by_the_command_line(contraux_rl, tmp_path):
    words = ["env=boxing", "env.n_envs=1", "agent=dqn", "agent.buffer_size=200", "agent.learning_starts=40"]
    words += ["steps=60", "objective=curl", "auxiliary.batch_size=8", "evaluation.episodes=1", "device=cpu"]
    words += ["evaluation.every=null", "hydra.run.dir=run", "tensorboard=false"]
    done = contraux_rl.run("rl", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    agent = DQN.load("run/checkpoint/model", device="cpu")
    assert agent.replay_buffer_class is FrameReplayBuffer
