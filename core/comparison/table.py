"""What every report of a comparison is made of: figures over seeds, the table, the page. Pure functions.

A *result* is what a run's `result.json` holds; `results[arm][seed]` holds them all, also of runs that did not complete.
The first arm is the reference, called base.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from ..paired import Difference
from .plan import Run

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
Rows = Sequence[tuple[str, ...]]

UNFINISHED = {"running": "cut short, its process ended"}


def results_of(runs: Iterable[Run]) -> dict[str, dict[int, dict[str, Any]]]:
    """Read what came of the runs, by arm and seed."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        results.setdefault(run.arm, {})[run.seed] = run.result() or {"status": "never started"}
    return results


def all_completed(results: Results) -> bool:
    """Return whether every run completed."""
    return all(result["status"] == "completed" for runs in results.values() for result in runs.values())


def iqm(values: Sequence[float]) -> float:
    """Return the interquartile mean: the mean without the lowest and the highest quarter (Agarwal et al. 2021).

    Of n values, floor(n / 4) are left out at either end.
    """
    return float(stats.trim_mean(values, 0.25))


def cost(own: Mapping[int, float], base: Mapping[int, float]) -> float:
    """Return the ratio of the mean cost over the seeds both have, or over all where they share none."""
    seeds = own.keys() & base.keys()
    if not seeds:
        return float(np.mean(list(own.values())) / np.mean(list(base.values())))
    return float(sum(own[seed] for seed in seeds) / sum(base[seed] for seed in seeds))


def decimals(values: Iterable[float]) -> int:
    """Return how many decimals values are shown with: one, or three where none reaches 10."""
    return 1 if max((abs(value) for value in values), default=10.0) >= 10 else 3


def spread(numbers: Sequence[float], digits: int) -> tuple[str, str]:
    """Return mean and standard deviation, and the interquartile mean, in figures; dashes where there is none."""
    if not numbers:
        return "–", "–"
    deviation = f" ± {np.std(numbers, ddof=1):.{digits}f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.{digits}f}{deviation}", f"{iqm(numbers):.{digits}f}"


def summary(own: Mapping[int, float], difference: Difference | None) -> dict[str, Any]:
    """Return a measure of an arm as plain values, for `results.json`."""
    numbers = list(own.values())
    return {
        "runs": len(own),
        "mean": float(np.mean(numbers)) if numbers else None,
        "sd": float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None,
        "iqm": iqm(numbers) if numbers else None,
        "difference_to_base": None if difference is None else difference._asdict(),
        "by_seed": {str(seed): value for seed, value in sorted(own.items())},
    }


def failures(results: Results) -> list[str]:
    """Return a sentence for every run that did not complete."""
    return [
        f"{arm} seed {seed}: {UNFINISHED.get(result['status'], result['status'])}"
        + (f", {result['error']}" if "error" in result else "")
        for arm, runs in results.items()
        for seed, result in sorted(runs.items())
        if result["status"] != "completed"
    ]


def page(name: str, header: Sequence[str], rows: Rows, sentences: Sequence[str], failed: Sequence[str]) -> str:
    """Return the table, the findings and the failures as a Markdown page."""
    lines = [f"# {name}", "", f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"* {sentence}" for sentence in sentences)]
    if failed:
        lines += ["", "Runs that did not complete:", "", *(f"* {sentence}" for sentence in failed)]
    return "\n".join(lines) + "\n"


def show(header: Sequence[str], rows: Rows, sentences: Sequence[str], failed: Sequence[str], console: Console) -> None:
    """Print table, failures and findings."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, title in enumerate(header):
        table.add_column(title, justify="left" if column < 2 else "right", no_wrap=True)
    for i, row in enumerate(rows):
        table.add_row(*row, end_section=i + 1 < len(rows) and bool(rows[i + 1][0]))
    console.print(table)
    for sentence in failed:
        console.print(f"did not complete: {sentence}", soft_wrap=True, style="red")
    for sentence in sentences:
        console.print(sentence, soft_wrap=True)
