"""`contraux compare`: the arms of an experiment over the same seeds. `core.comparison` does the runs, this reports."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from ..core.comparison import Run, compare, read_controls
from ..core.comparison.table import all_completed, results_of
from ..core.files import write_json
from . import job
from .curves import draw
from .report import Results, as_markdown, as_values, show
from .result import learning_curve, read_episodes, success_curve


def main(cfg: DictConfig) -> None:
    """Launch the runs that are still to be done, then report on all of them.

    Raises:
        ValueError: a setting of the comparison breaks its rule, or a folder was made with other settings.
        SystemExit: with 1 when runs failed, 130 when the comparison was interrupted.
    """
    compare(cfg, job.perform, partial(write_report, controls=read_controls(cfg)))


def write_report(folder: Path, name: str, runs: Sequence[Run], *, controls: Mapping[str, str]) -> bool:
    """Print what was found, save `table.md`, `results.json` and `curves.png`, and return whether all runs completed."""
    results = results_of(runs)
    console = Console(highlight=False)
    console.width = max(console.width, 110)  # a broken line is read more easily than a table cut off
    show(results, console, controls)
    (folder / "table.md").write_text(as_markdown(name, results, controls), encoding="utf-8")
    write_json(folder / "results.json", as_values(name, results, controls))
    places = [folder / "table.md", folder / "results.json"]
    try:
        draw_curves(results, runs, name, folder / "curves.png")
        places.append(folder / "curves.png")
        if draw_successes(results, runs, name, folder / "success.png"):
            places.append(folder / "success.png")
    except ImportError:
        console.print("no picture: matplotlib is not installed, pip install 'contraux[jobs]'")
    console.print(f"table, numbers, picture: {' '.join(map(str, places))}", soft_wrap=True)
    return all_completed(results)


def draw_curves(results: Results, runs: Sequence[Run], name: str, path: Path) -> None:
    """Draw the learning curves of the completed runs."""
    curves: dict[str, list[np.ndarray]] = {}
    completed = [run for run in runs if results[run.arm][run.seed]["status"] == "completed"]
    steps = max((results[run.arm][run.seed]["taken_steps"] for run in completed), default=0)
    at = np.linspace(0, steps, 41)[1:]
    for run in completed:
        curves.setdefault(run.arm, []).append(learning_curve(*read_episodes(run.folder / "episodes.csv"), at))
    draw({arm: np.stack(own) for arm, own in curves.items()}, at, name, path)


def draw_successes(results: Results, runs: Sequence[Run], name: str, path: Path) -> bool:
    """Draw the success of evaluations, where the completed runs have some at the same steps; return whether."""
    curves: dict[str, list[np.ndarray]] = {}
    steps: list[np.ndarray] = []
    for run in runs:
        file = run.folder / "evaluations.npz"
        if results[run.arm][run.seed]["status"] == "completed" and file.exists():
            at, successes = success_curve(file)
            steps.append(at)
            curves.setdefault(run.arm, []).append(successes)
    if not steps or not len(steps[0]) or any(not np.array_equal(at, steps[0]) for at in steps):
        return False
    ylabel = "success in evaluation, %"
    draw({arm: np.stack(own) for arm, own in curves.items()}, steps[0], name, path, ylabel)
    return True
