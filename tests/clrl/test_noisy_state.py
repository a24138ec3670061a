import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from contraux.clrl.envs import NoisyState, register
from contraux.clrl.envs.noisy_state import random_rotation

ID = "contraux/NoisyCartPole-v1"


class Constant(gymnasium.Env):
    """Observes the same vector for ever."""

    observation_space = spaces.Box(-1, 1, (3,), np.float64)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([0.5, -0.25, 1.0]), {}

    def step(self, action):
        return np.array([0.5, -0.25, 1.0]), 0.0, False, False, {}


def test_without_noise_only_rotates():
    env = NoisyState(Constant(), noise_dim=0, rotation_seed=3)
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32 and observation.shape == (3,)
    assert np.linalg.norm(observation) == pytest.approx(np.sqrt(0.25 + 0.0625 + 1.0), rel=1e-6)
    np.testing.assert_allclose(env.rotation.T @ observation, [0.5, -0.25, 1.0], atol=1e-6)


def test_rotating_back_finds_the_state_and_fresh_standard_noise():
    env = NoisyState(Constant(), noise_dim=50, rotation_seed=1)
    env.reset(seed=0)
    unrotated = np.stack([env.rotation.T @ env.step(0)[0] for _ in range(400)])
    np.testing.assert_allclose(unrotated[:, :3], np.tile([0.5, -0.25, 1.0], (400, 1)), atol=1e-5)
    noise = unrotated[:, 3:]
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03  # 20,000 values
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.03  # drawn anew each step


@pytest.mark.parametrize("size", [1, 4, 64])
def test_rotation_is_orthogonal_and_seeded(size):
    rotation = random_rotation(size, 0)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(size), atol=1e-12)
    np.testing.assert_array_equal(rotation, random_rotation(size, 0))
    if size > 1:
        assert not np.allclose(rotation, random_rotation(size, 1))


def test_signs_are_uniform():
    # Without the sign fix LAPACK's Q has first diagonal entry of one sign only.
    first = [random_rotation(2, seed)[0, 0] for seed in range(200)]
    assert 60 < sum(value > 0 for value in first) < 140


def rollout(env, seed):
    observations = [env.reset(seed=seed)[0]]
    env.action_space.seed(seed)
    for _ in range(30):
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        observations.append(observation)
        if terminated or truncated:
            observations.append(env.reset()[0])
    return np.stack(observations)


def test_reset_with_a_seed_repeats_everything():
    first = rollout(gymnasium.make(ID), 7)
    np.testing.assert_array_equal(first, rollout(gymnasium.make(ID), 7))
    assert not np.allclose(first[0], rollout(gymnasium.make(ID), 8)[0])


@pytest.mark.filterwarnings("ignore::UserWarning")  # the checker advises against wrappers and unbounded boxes
def test_registered_id_takes_arguments_and_passes_the_checker():
    env = gymnasium.make(ID, noise_dim=5, rotation_seed=2)
    assert env.observation_space.shape == (9,)
    assert env.spec.max_episode_steps == 500
    check_env(env, skip_render_check=True)
    before = dict(gymnasium.registry)
    register()
    assert before == dict(gymnasium.registry)


@pytest.mark.parametrize(("name", "limit"), [("CartPole", 500), ("Acrobot", 500), ("Pendulum", 200)])
def test_each_task_is_gymnasiums_own_behind_noise(name, limit):
    noisy, plain = gymnasium.make(f"contraux/Noisy{name}-v1", noise_dim=7), gymnasium.make(f"{name}-v1")
    state, _ = plain.reset(seed=3)
    unrotate = noisy.get_wrapper_attr("rotation").T
    np.testing.assert_allclose((unrotate @ noisy.reset(seed=3)[0])[: len(state)], state, atol=1e-5)
    plain.action_space.seed(0)
    for _ in range(5):
        action = plain.action_space.sample()
        state, reward, *_ = plain.step(action)
        observation, noisy_reward, *_ = noisy.step(action)
        np.testing.assert_allclose((unrotate @ observation)[: len(state)], state, atol=1e-5)
        assert noisy_reward == reward
    assert noisy.spec.max_episode_steps == limit


def test_copies_rotate_alike():
    train, evaluation = gymnasium.make(ID), gymnasium.make(ID)
    train.reset(seed=1)
    evaluation.reset(seed=2)
    np.testing.assert_array_equal(train.get_wrapper_attr("rotation"), evaluation.get_wrapper_attr("rotation"))


def test_fresh_process_needs_no_import_of_ours():
    code = (
        "import gymnasium, sys; assert 'contraux' not in sys.modules;"
        f"env = gymnasium.make('contraux.clrl.envs:{ID}', noise_dim=2); print(env.observation_space.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(6,)"


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"noise_dim": -1}, "noise_dim must be an integer >= 0, got -1"),
        ({"noise_dim": 2.0}, "noise_dim must be an integer >= 0, got 2.0"),
        ({"rotation_seed": "a"}, "rotation_seed must be an integer >= 0, got 'a'"),
    ],
)
def test_arguments_out_of_range(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        NoisyState(Constant(), **kwargs)


def test_images_are_refused():
    env = Constant()
    env.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="NoisyState needs a Box observation of one dimension"):
        NoisyState(env)
