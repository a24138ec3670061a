"""The auxiliary inside the real rl-baselines3-zoo, by the `callback:` key of its hyper-parameter files."""

import subprocess
import sys

import pytest
import torch
from stable_baselines3 import DQN, PPO

pytest.importorskip("rl_zoo3", reason="rl-baselines3-zoo is not installed")

PPO_CARTPOLE = """
CartPole-v1:
  n_envs: 2
  n_timesteps: 512
  policy: MlpPolicy
  n_steps: 64
  batch_size: 64
  n_epochs: 2
  policy_kwargs: "importlib.import_module('contraux.clrl').vector_encoder()"
"""
DQN_CARTPOLE = """
CartPole-v1:
  n_timesteps: 300
  policy: MlpPolicy
  learning_starts: 50
  buffer_size: 1000
  policy_kwargs: "importlib.import_module('contraux.clrl').vector_encoder()"
"""
DQN_PIXELS = """
contraux/Pixels-v1:
  n_timesteps: 60
  env_kwargs: {task: CartPole-v1, size: 36}
  frame_stack: 3
  policy: CnnPolicy
  learning_starts: 20
  buffer_size: 200
  batch_size: 8
  replay_buffer_class: "importlib.import_module('contraux.clrl').FrameReplayBuffer"
  callback:
    - contraux.clrl.ContrastiveAuxiliary: {objective: curl, every: 4}
"""
AUXILIARY = """
  callback:
    - contraux.clrl.ContrastiveAuxiliary: {{objective: temporal, weight: {weight}}}
"""
# One process for all runs, and not the one of the tests: the zoo changes Gymnasium when it is imported.
TRAIN = """
import sys
from rl_zoo3.train import train
for run in sys.argv[1:]:
    algorithm, arm = run.split(":")
    print("arm", arm, flush=True)
    env = open(f"{arm}.yml").read().split(":")[0].strip()
    sys.argv = ["train", "--algo", algorithm, "--env", env, "--conf-file", f"{arm}.yml", "-f", arm]
    sys.argv += ["--gym-packages", "contraux.clrl.envs", "--eval-freq", "-1"]
    sys.argv += ["--seed", "3", "--device", "cpu", "--log-interval", "1"]
    train()
"""
BONUS = """
  callback:
    - contraux.clrl.ContrastiveAuxiliary: {objective: temporal}
    - contraux.clrl.exploration.NoveltyBonus: {bonus: episodic, weight: 0.1}
"""
RUNS = {
    "plain": (PPO, PPO_CARTPOLE),
    "weight_0": (PPO, PPO_CARTPOLE + AUXILIARY.format(weight=0)),
    "weight_1": (PPO, PPO_CARTPOLE + AUXILIARY.format(weight=1.0)),
    "pixels": (DQN, DQN_PIXELS),
    "bonus": (PPO, PPO_CARTPOLE + BONUS),
    "off_policy": (DQN, DQN_CARTPOLE + AUXILIARY.format(weight=1.0)),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What each run printed, and the weights it ended with."""
    folder = tmp_path_factory.mktemp("zoo")
    for arm, (_, text) in RUNS.items():
        (folder / f"{arm}.yml").write_text(text)
    words = [f"{algorithm.__name__.lower()}:{arm}" for arm, (algorithm, _) in RUNS.items()]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *words], capture_output=True, text=True, timeout=240, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    printed = dict(part.split(maxsplit=1) for part in done.stdout.split("arm ")[1:])
    return {arm: (printed[arm], weights(folder / arm, algorithm)) for arm, (algorithm, _) in RUNS.items()}


def weights(folder, algorithm):
    model = algorithm.load(next(folder.glob("*/*-v1_1/*-v1.zip")), device="cpu")
    return torch.cat([parameter.flatten() for parameter in model.policy.parameters()])


def updates(printed):
    cells = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines()]
    return [int(cell[2]) for cell in cells if cell[1:2] == ["updates"]]


def test_ppo_trains_with_the_callback_of_a_yaml_file(runs):
    plain, off, on = (runs[arm] for arm in ("plain", "weight_0", "weight_1"))
    assert "auxiliary/" not in plain[0]
    assert updates(on[0]) == [4, 8, 12]  # 2 epochs of 2 batches after each rollout, printed after the next
    torch.testing.assert_close(off[1], plain[1], rtol=0, atol=0)
    assert (on[1] - plain[1]).abs().max() > 1e-4


def test_dqn_too(runs):
    printed, weights = runs["off_policy"]
    assert "auxiliary/" in printed
    assert weights.isfinite().all()


def test_a_bonus_too(runs):
    printed, weights = runs["bonus"]
    assert "exploration/" in printed and "auxiliary/" in printed
    assert weights.isfinite().all() and not torch.equal(weights, runs["weight_1"][1])


def test_images_frame_by_frame(runs):
    printed, weights = runs["pixels"]
    assert "FrameReplayBuffer" in printed and "Stacking 3 frames" in printed
    assert weights.isfinite().all()
