"""What a run found, in numbers: returns from its episodes, and the few lines that are printed at its end."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

WINDOW = 100  # episodes a return is averaged over
CHECKPOINTS = 5  # equally spaced steps the area under the learning curve is the mean of


def read_episodes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return `(E,)` steps and `(E,)` returns of the episodes in an `episodes.csv`, in the order they ended."""
    with path.open(newline="") as file:
        rows = [(float(row["step"]), float(row["return"])) for row in csv.DictReader(file)]
    steps, returns = np.array(rows, dtype=float).reshape(-1, 2).T
    return steps, returns


def learning_curve(steps: np.ndarray, returns: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return, for each step in `at`, the mean return of the last 100 episodes that had ended by then.

    Args:
        steps: `(E,)`, non-decreasing, when each episode ended.
        returns: `(E,)`, its return.
        at: `(A,)` steps to look at.

    Returns:
        `(A,)`; NaN where no episode had ended.
    """
    sums = np.concatenate([[0.0], np.cumsum(returns)])
    ended = np.searchsorted(steps, at, side="right")
    first = np.maximum(ended - WINDOW, 0)
    counts = ended - first
    return np.where(counts > 0, (sums[ended] - sums[first]) / np.maximum(counts, 1), np.nan)


def success_curve(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return `(A,)` steps and `(A,)` percentages of success of the evaluations in an `evaluations.npz`.

    Both are empty where the environment knows no success. Of two evaluations at one step (the run's last one, and one
    that was due) the last counts.
    """
    with np.load(path) as saved:
        if "successes" not in saved:
            return np.zeros(0), np.zeros(0)
        steps, successes = saved["timesteps"], 100 * saved["successes"].mean(1)
    last = np.append(steps[1:] != steps[:-1], True)
    return steps[last], successes[last]


def completed(
    episode_steps: np.ndarray,
    returns: np.ndarray,
    *,
    steps: int,
    evaluation: np.ndarray,
    successes: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the numbers of a completed run; None stands for one that has no episode to be computed from.

    `final_return` is the mean of the last 100 training episodes, `area` the mean of the learning curve at a fifth, two
    fifths, … of the run, `evaluation` mean and standard deviation of the last deterministic evaluation, and `success`
    the percentage of its episodes that ended in success, where the environment says `is_success`.
    """
    at = np.linspace(0, steps, CHECKPOINTS + 1)[1:]
    curve = learning_curve(episode_steps, returns, at)
    area = float(np.nanmean(curve)) if np.isfinite(curve).any() else None
    return {
        "final_return": float(np.mean(returns[-WINDOW:])) if len(returns) else None,
        "area": area,
        "evaluation": {"mean": float(evaluation.mean()), "sd": float(evaluation.std()), "episodes": evaluation.size},
        "episodes": len(returns),
        "success": None if successes is None else 100 * float(np.mean(successes)),
    }


def show(run: Path, result: dict[str, Any]) -> None:
    """Print what a run found and where it lies."""
    console = Console(highlight=False)
    run = run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
    if result["status"] == "interrupted":
        console.print(
            f"stopped by {result['by']} after {result['taken_steps']} of {result['steps']} steps; a checkpoint is "
            f"saved. To go on:\n  contraux rl resume={run}",
            soft_wrap=True,
        )
        return
    evaluation = result["evaluation"]
    episodes = "1 episode" if evaluation["episodes"] == 1 else f"{evaluation['episodes']} episodes"
    rows = {
        "return, last 100 training episodes": number(result["final_return"]),
        "area under the learning curve": number(result["area"]),
        f"evaluation, {episodes}": f"{evaluation['mean']:.1f} ± {evaluation['sd']:.1f}",
        **({} if result.get("success") is None else {"success in it": f"{result['success']:.0f} %"}),
        "steps": f"{result['taken_steps']} in {result['seconds']:.0f} s, {result['steps_per_second']:.0f} steps/s",
        "model": str(run / "checkpoint" / "model.zip"),
        "everything else": str(run),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console.width = max(console.width, 40 + len(rows["model"]))  # a path that is cut off is of no use
    console.print(table)


def number(value: float | None) -> str:
    """Return a number with one decimal, or why it is missing."""
    return "no training episode ended" if value is None else f"{value:.1f}"
