"""`contraux rl` for real: what a run leaves behind, interruption, resumption, sweeps."""

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from contraux.agents import ContrastivePPO

PROGRAM = Path(sys.executable).with_name("contraux")
TINY = ["env.n_envs=2", "threads=1", "evaluation.episodes=2"]
PPO = [*TINY, "agent.n_steps=32", "agent.batch_size=32", "agent.n_epochs=1", "steps=256", "evaluation.every=128"]


def only_run(folder):
    (run,) = folder.glob("runs/rl/*")
    return run


def read(run):
    return json.loads((run / "result.json").read_text())


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_run_leaves_everything_behind(contraux_rl, tmp_path):
    done = contraux_rl.run("rl", *PPO, "seed=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    found = read(run)
    assert (found["status"], found["taken_steps"], found["seed"]) == ("completed", 256, 3)
    assert OmegaConf.load(run / "config.yaml").objective.source.k == 1
    versions = json.loads((run / "versions.json").read_text())
    assert {"python", "torch", "stable-baselines3", "gymnasium", "contraux"} <= set(json.dumps(versions).split('"'))
    assert rows(run / "progress.csv")[-1]["auxiliary/loss"]
    assert list((run / "tensorboard").iterdir())
    assert np.load(run / "evaluations.npz")["timesteps"].tolist()[-1] == 256
    assert rows(run / "episodes.csv")
    assert ContrastivePPO.load(run / "checkpoint" / "model.zip").auxiliary is not None
    assert "steps/s" in done.stdout


@pytest.mark.parametrize(
    "agent", ["a2c", "dqn", "sac", "td3", "ddpg", "tqc", "qrdqn", "crossq", "recurrent_ppo", "trpo"]
)
def test_every_agent_by_its_name(contraux_rl, tmp_path, agent):
    continuous = agent in ("sac", "td3", "ddpg", "tqc", "crossq")
    off_policy = continuous or agent in ("dqn", "qrdqn")
    own = ["agent.learning_starts=50", "agent.buffer_size=500", "agent.batch_size=32"] if off_policy else []
    own += ["agent.train_freq=8"] if off_policy else ["agent.n_steps=16"]
    env = "env=pendulum" if continuous else "env=cartpole"
    own += ["steps=160", "evaluation.every=null", "evaluation.episodes=1", "tensorboard=false"]
    done = contraux_rl.run("rl", f"agent={agent}", env, *TINY, *own, "auxiliary.batch_size=16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read(only_run(tmp_path))["status"] == "completed"


MASKED = """
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv

class Env(CartPoleEnv):
    def action_masks(self):
        return np.array([True, False])  # always to the left: falls within ten steps
"""


def test_masks_hold_while_learning_and_evaluating(contraux_rl, tmp_path):
    (tmp_path / "masked.py").write_text(MASKED)
    words = ["rl", "agent=maskable_ppo", *TINY, "agent.n_steps=32", "agent.batch_size=32", "steps=128",
             "auxiliary.batch_size=16", "tensorboard=false"]  # fmt: skip
    own = "env.id={_target_: hydra.utils.get_object, path: masked.Env}"
    done = contraux_rl.run(*words, own, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    assert all(float(row["return"]) < 12 for row in rows(run / "episodes.csv"))
    assert read(run)["evaluation"]["mean"] < 12
    without = contraux_rl.run(*words, "hydra.run.dir=without", cwd=tmp_path)
    assert without.returncode == 2 and "does not support action masking" in without.stderr
    done = contraux_rl.run(*words, "agent.learn.use_masking=false", "hydra.run.dir=plain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_weight_zero_equals_the_plain_algorithm_and_another_seed_does_not(contraux_rl, tmp_path):
    hashes = {}
    for name, words in {
        "plain": ["objective=none"],
        "zero": ["weight=0"],
        "other": ["objective=none", "seed=1"],
    }.items():
        done = contraux_rl.run("rl", *PPO, *words, "tensorboard=false", f"hydra.run.dir={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        hashes[name] = read(tmp_path / name)["weights"]
    assert hashes["plain"] == hashes["zero"] != hashes["other"]


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_interrupted_and_resumed(contraux_rl, tmp_path, agent):
    own = ["agent.learning_starts=100", "agent.buffer_size=2000"] if agent == "dqn" else ["agent.n_steps=64"]
    words = ["rl", f"agent={agent}", *TINY, *own, "auxiliary.batch_size=32", "steps=1_000_000"]
    process = contraux_rl.start(*words, cwd=tmp_path)
    process.wait_until(lambda: any(len(rows(file)) > 20 for file in tmp_path.glob("runs/rl/*/episodes.csv")))
    process.kill(signal.SIGINT)
    assert process.wait() == 130, process.stderr
    out = process.stdout
    run = only_run(tmp_path)
    before = read(run)
    assert before["status"] == "interrupted" and f"resume={run.relative_to(tmp_path)}" in out.replace("\n", "")
    taken, episodes = before["taken_steps"], rows(run / "episodes.csv")
    again = contraux_rl.run("rl", f"resume={run}", f"steps={taken + 300}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    after = read(run)
    assert after["status"] == "completed" and after["resumed_at"] == taken and after["taken_steps"] >= taken + 300
    assert rows(run / "episodes.csv")[: len(episodes)] == episodes  # nothing written before is lost
    updates = [int(row["auxiliary/updates"]) for row in rows(run / "progress.csv") if row.get("auxiliary/updates")]
    assert updates == sorted(updates) and updates[-1] > 0
    refused = contraux_rl.run("rl", f"resume={run}", "seed=3", f"steps={taken + 600}", cwd=tmp_path)
    assert refused.returncode == 2 and "a resumed run keeps its settings" in refused.stderr
    finished = contraux_rl.run("rl", f"resume={run}", f"steps={taken + 300}", cwd=tmp_path)
    assert finished.returncode == 2 and "steps=MORE goes on" in finished.stderr


def test_a_sweep_makes_a_folder_each(contraux_rl, tmp_path):
    done = contraux_rl.run("rl", "-m", *PPO, "objective=none,temporal", "seed=0,1", "tensorboard=false", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/rl/*/*/result.json")]
    assert sorted(found["seed"] for found in results) == [0, 0, 1, 1]


def test_a_run_that_fails_says_so_in_its_folder(contraux_rl, tmp_path):
    done = contraux_rl.run("rl", *PPO, "auxiliary.k=400", "steps=1024", cwd=tmp_path)
    assert done.returncode == 2
    assert "k must be smaller than the number of steps" in done.stderr and "Traceback" not in done.stderr
    found = read(only_run(tmp_path))
    assert found["status"] == "failed" and "k=400" in found["error"]


def test_a_mistake_in_the_arm_of_a_comparison_is_the_same_sentence(contraux_rl, tmp_path):
    arms = "+compare.arms={base: ['objective=none'], other: ['evaluation=null']}"
    contraux_rl.run("compare", *PPO, "compare.name=own", "compare.seeds=1", arms, "hydra/launcher=basic", cwd=tmp_path)
    folder = tmp_path / "runs" / "compare" / "own"
    assert read(folder / "base" / "seed_0")["status"] == "completed"
    found = read(folder / "other" / "seed_0")
    assert found["status"] == "failed" and found["error"].startswith("evaluation must keep its keys, got null: ")


def test_pixels_with_the_atari_wrappers(contraux_rl, tmp_path):
    done = contraux_rl.run("rl", "experiment=boxing_curl", "steps=256", "env.n_envs=2", "agent.n_steps=64", "threads=1",
                    "auxiliary.batch_size=32", "evaluation.episodes=1", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read(only_run(tmp_path))["status"] == "completed"
    assert "steps/s" in done.stdout
    assert os.path.exists(only_run(tmp_path) / "checkpoint" / "model.zip")


def test_a_terminal_gets_a_progress_bar_with_speed_and_time_left(tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen([PROGRAM, "rl", *PPO], cwd=tmp_path, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    assert process.wait(timeout=60) == 0
    assert b"256" in shown and b"steps/s" in shown
    assert re.search(rb"\d:\d\d", shown)  # elapsed and remaining time
