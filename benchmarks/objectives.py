"""What each objective costs: CPU time of an update of PPO with it, as a multiple of one without.

    python benchmarks/objectives.py [--reps 7] [--only cpc stdim] [--batch 64] [--json rows.json]

The algorithm is PPO with NatureCNN on 84 x 84 images, stacked by 4, of an environment that costs nothing. The arms are
the presets of `configs/objective/`, each in turn in every repetition, in an order that is drawn anew, beside an arm
without: a ratio is of the same repetition, and the table gives their median and range. What is timed is `learn` after
one round to warm up, so that building heads is left out, and time of this process on one thread, so that the machine's
other work mostly is. Windows an update: as many as the algorithm's batch. `frames` is how many observations an update
sends through the encoder (or its momentum copy) for the objective, in batches of the algorithm: most of the cost.
"""

import argparse
import json
import platform
import random
import statistics
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.env_util import make_vec_env

from contraux.clrl import ContrastiveAuxiliary
from contraux.core.preset import presets

N_ENVS, N_STEPS, EPOCHS = 4, 64, 2
ROLLOUT = N_ENVS * N_STEPS


class Screen(gym.Env):
    """Random images at no cost, so that what is measured is the algorithm."""

    observation_space = spaces.Box(0, 255, (84, 84, 4), np.uint8)
    action_space = spaces.Discrete(4)
    images = np.random.default_rng(0).integers(0, 256, (64, 84, 84, 4), dtype=np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.clock = 0
        return self.images[0], {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.clock += 1
        return self.images[self.clock % 64], float(action == 0), False, self.clock >= 200, {}


class Clock(BaseCallback):
    """CPU time from the second rollout to the end of `learn`: the first round warms up."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds: list[float] = []

    def _on_rollout_start(self) -> None:
        self.rounds.append(time.process_time())

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.seconds = time.process_time() - self.rounds[1]


class Counted:
    """Observations that go through the encoder or its momentum copy, whatever for."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        self.observations = self.gradient_observations = 0
        encoder.cnn[0].register_forward_hook(self._count)  # type: ignore[index]

    def __deepcopy__(self, _memo: dict[int, Any]) -> "Counted":
        return self  # a copy of the encoder counts here too

    def _count(self, _module: Any, inputs: tuple[torch.Tensor, ...], _output: Any) -> None:
        self.observations += len(inputs[0])
        self.gradient_observations += len(inputs[0]) * torch.is_grad_enabled()


def make(batch: int) -> PPO:
    """The algorithm, freshly initialised."""
    env = make_vec_env(Screen, n_envs=N_ENVS, seed=0)
    return PPO("CnnPolicy", env, n_steps=N_STEPS, batch_size=batch, n_epochs=EPOCHS, seed=0, device="cpu")


def updates(rounds: int, batch: int) -> int:
    """Optimizer steps in so many rounds."""
    return rounds * EPOCHS * -(-ROLLOUT // batch)


def timed(objective: str | None, batch: int, rounds: int) -> float:
    """CPU milliseconds an update, the collection of its share of the rollout included."""
    model, clock = make(batch), Clock()
    callbacks: list[BaseCallback] = [clock]
    if objective is not None:
        callbacks.insert(0, ContrastiveAuxiliary(objective, batch_size=batch))
    model.learn(ROLLOUT * (rounds + 1), callback=CallbackList(callbacks))
    return clock.seconds * 1000 / updates(rounds, batch)


def frames(objective: str | None, batch: int) -> tuple[float, float]:
    """Observations an update sends through the encoder, in batches: all of them, and those with a gradient."""
    model = make(batch)
    counted = Counted(model.policy.features_extractor)
    model.learn(ROLLOUT, callback=None if objective is None else ContrastiveAuxiliary(objective, batch_size=batch))
    made = updates(1, batch) * batch
    return counted.observations / made, counted.gradient_observations / made


def measure(names: list[str], reps: int, batch: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each preset, the first of them for none."""
    arms: list[str | None] = [None, *names]
    seconds: dict[str | None, list[float]] = {arm: [] for arm in arms}
    order = random.Random(0)
    for _ in range(reps):
        order.shuffle(arms)
        for arm in arms:
            seconds[arm].append(timed(arm, batch, rounds))
    alone, alone_gradient = frames(None, batch)
    rows = []
    for arm in (None, *names):
        ratios = [own / base for own, base in zip(seconds[arm], seconds[None], strict=True)]
        total, with_gradient = (alone, alone_gradient) if arm is None else frames(arm, batch)
        rows.append(
            {
                "objective": arm or "none",
                "ratio": statistics.median(ratios),
                "range": [min(ratios), max(ratios)],
                "milliseconds": statistics.median(seconds[arm]),
                "frames": total - alone,
                "frames_with_gradient": with_gradient - alone_gradient,
            }
        )
    return rows


def show(rows: list[dict[str, Any]], reps: int, batch: int) -> None:
    """Print the table."""
    title = f"PPO, NatureCNN 84 x 84 x 4, batch {batch}, one thread, {reps} repetitions"
    table = Table(
        "objective", "CPU time / without", "range", "CPU ms an update", "frames", "with gradient", title=title
    )
    for row in rows:
        low, high = row["range"]
        table.add_row(
            row["objective"], f"{row['ratio']:.2f}", f"{low:.2f}-{high:.2f}", f"{row['milliseconds']:.1f}",
            f"{row['frames']:.0f}", f"{row['frames_with_gradient']:.0f}",
        )  # fmt: skip
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=presets(), default=presets())
    parser.add_argument("--batch", type=int, default=64, help="of the algorithm and of the objective")
    parser.add_argument("--rounds", type=int, default=2, help="rollouts with their updates in each repetition")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    timed(None, arguments.batch, 1)  # warm up
    rows = measure(arguments.only, arguments.reps, arguments.batch, arguments.rounds)
    show(rows, arguments.reps, arguments.batch)
    if arguments.json:
        machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        settings = {"reps": arguments.reps, "batch": arguments.batch, "rounds": arguments.rounds}
        arguments.json.write_text(json.dumps({**machine, **settings, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
