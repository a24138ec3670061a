"""What the auxiliary costs: the same algorithm with and without the callback, paired and interleaved in one run.

    python benchmarks/overhead.py [--reps 5] [--only ppo-mlp] [--profile]

Every repetition trains each arm once for the same number of steps, in turn, and takes the ratio of CPU time to the arm
without the callback in the same repetition; the table gives the median ratio and its range. One thread, auxiliary batch
equal to the algorithm's. `--profile` says where the time of the auxiliary goes instead.
"""

import argparse
import cProfile
import io
import json
import platform
import pstats
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env

from contraux.clrl import ContrastiveAuxiliary, vector_encoder


class Screen(gym.Env):
    """Random 84 x 84 images at no cost, so that what is measured is the algorithm."""

    observation_space = spaces.Box(0, 255, (84, 84, 1), np.uint8)
    action_space = spaces.Discrete(4)
    images = np.random.default_rng(0).integers(0, 256, (64, 84, 84, 1), dtype=np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.clock = 0
        return self.images[0], {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.clock += 1
        return self.images[self.clock % 64], float(action == 0), False, self.clock >= 200, {}


def ppo_mlp() -> PPO:
    env = make_vec_env("CartPole-v1", n_envs=4, seed=0)
    return PPO("MlpPolicy", env, n_steps=256, policy_kwargs=vector_encoder(), seed=0, device="cpu")


def sac() -> SAC:
    kwargs = vector_encoder(hidden=(256,), features_dim=256, net_arch=[256, 256])
    env = make_vec_env("Pendulum-v1", seed=0)
    return SAC("MlpPolicy", env, policy_kwargs=kwargs, learning_starts=300, seed=0, device="cpu")


def ppo_pixels() -> PPO:
    env = make_vec_env(Screen, n_envs=4, seed=0)
    return PPO("CnnPolicy", env, n_steps=64, batch_size=64, n_epochs=4, seed=0, device="cpu")


WORKLOADS: dict[str, tuple[Callable[[], Any], int, dict[str, dict[str, Any]]]] = {
    "ppo-mlp": (
        ppo_mlp,
        8192,
        {"every update": {"objective": "temporal"}, "every 4th": {"objective": "temporal", "every": 4}},
    ),
    "sac-256": (
        sac,
        1000,
        {
            "every update, both encoders": {"objective": "temporal", "encoder": "all"},
            "every update, critic's": {"objective": "temporal"},
            "every 4th, both encoders": {"objective": "temporal", "encoder": "all", "every": 4},
        },
    ),
    "ppo-nature-cnn": (
        ppo_pixels,
        1024,
        {
            "every update": {"objective": "temporal"},
            "every 4th": {"objective": "temporal", "every": 4},
            "every update, curl": {"objective": "curl"},
            "every 4th, curl": {"objective": "curl", "every": 4},
            "every update, curl, shared pass": {"objective": "curl", "mode": "shared"},
        },
    ),
}


def cpu_seconds(make: Callable[[], Any], steps: int, auxiliary: dict[str, Any] | None) -> float:
    """CPU seconds of this process for one `learn`."""
    model = make()
    callback = None if auxiliary is None else ContrastiveAuxiliary(**auxiliary)
    start = time.process_time()
    model.learn(steps, callback=callback)
    return time.process_time() - start


def measure(reps: int, only: str | None) -> list[dict[str, Any]]:
    """One row per workload and arm."""
    rows = []
    for name, (make, steps, arms) in WORKLOADS.items():
        if only not in (None, name):
            continue
        cpu_seconds(make, steps // 4, next(iter(arms.values())))  # warm up
        seconds: dict[str, list[float]] = {"none": [], **{arm: [] for arm in arms}}
        for _ in range(reps):
            for arm in seconds:
                seconds[arm].append(cpu_seconds(make, steps, arms.get(arm)))
        for arm, values in seconds.items():
            ratios = [value / base for value, base in zip(values, seconds["none"], strict=True)]
            rows.append(
                {
                    "workload": name,
                    "arm": arm,
                    "ratio": statistics.median(ratios),
                    "range": [min(ratios), max(ratios)],
                    "steps_per_cpu_second": steps / statistics.median(values),
                }
            )
    return rows


def show(rows: list[dict[str, Any]], reps: int) -> None:
    """Print the table."""
    table = Table(
        "workload", "auxiliary", "CPU time / without", "range", "steps per CPU s", title=f"{reps} repetitions"
    )
    for row in rows:
        low, high = row["range"]
        table.add_row(
            row["workload"], row["arm"], f"{row['ratio']:.2f}", f"{low:.2f}-{high:.2f}",
            f"{row['steps_per_cpu_second']:.0f}",
        )  # fmt: skip
    Console(width=110).print(table)


def profile(only: str | None) -> None:
    """Where the CPU time of one workload with the auxiliary at every update goes."""
    make, steps, arms = WORKLOADS[only or "ppo-mlp"]
    model = make()
    profiler = cProfile.Profile()
    profiler.enable()
    model.learn(steps, callback=ContrastiveAuxiliary(**next(iter(arms.values()))))
    profiler.disable()
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("cumulative").print_stats(60)
    print(text.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--only", choices=list(WORKLOADS))
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.profile:
        profile(arguments.only)
        return
    rows = measure(arguments.reps, arguments.only)
    show(rows, arguments.reps)
    if arguments.json:
        record = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
