"""The tables of a comparison of encoders: figures over seeds, and differences paired by game and seed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from ...core.paired import Difference, paired
from .probe import MEASURES

TITLES = {"macro_f1": "macro-F1", "weighted_f1": "weighted F1", "accuracy": "accuracy", "r2": "R²"}
COMPARED = ("macro_f1", "r2")
Cell = Mapping[str, Any]
Key = tuple[str, int]
"""An environment and a seed."""


class Results(NamedTuple):
    """What is finished.

    Attributes:
        reference: the arm others are compared with.
        cells: arm -> (environment, seed) -> what the cell's JSON holds; an arm after the ReLU has that in its name.
    """

    reference: str
    cells: dict[str, dict[Key, Cell]]

    def environments(self) -> list[str]:
        """Return the environments, in the order in which they came."""
        return list(dict.fromkeys(env for own in self.cells.values() for env, _ in own))


def collect(cells: Iterable[Cell], reference: str) -> Results:
    """Return results from cells."""
    found: dict[str, dict[Key, Cell]] = {}
    for cell in cells:
        for layer, variables in cell["layers"].items():
            arm = cell["arm"] if layer == "before_relu" else f"{cell['arm']} after ReLU"
            found.setdefault(arm, {})[cell["env"], cell["seed"]] = {**cell, "variables": variables}
    return Results(reference, found)


def mean(cell: Cell, measure: str, category: str | None = None) -> float | None:
    """Return the mean of a measure over the variables of a cell, or over those of one category; None without any."""
    values = [
        own[measure]
        for own in cell["variables"]
        if category in (None, own["category"]) and own[measure] is not None and np.isfinite(own[measure])
    ]
    return float(np.mean(values)) if values else None


def values(
    results: Results, arm: str, measure: str, env: str | None = None, category: str | None = None
) -> dict[Key, float]:
    """Return the means of an arm's cells, in one environment or all."""
    found = {
        key: mean(cell, measure, category) for key, cell in results.cells.get(arm, {}).items() if env in (None, key[0])
    }
    return {key: value for key, value in found.items() if value is not None}


def difference(one: Mapping[Key, float], other: Mapping[Key, float]) -> Difference | None:
    """Return `one - other` over the environments and seeds that both have."""
    keys = sorted(one.keys() & other.keys())
    return paired({i: one[key] for i, key in enumerate(keys)}, {i: other[key] for i, key in enumerate(keys)})


def rows(results: Results, env: str | None, measures: Sequence[str] = MEASURES) -> list[list[str]]:
    """Return one row for each arm: figures, and differences to the reference; of all environments if `env` is None."""
    made = []
    for arm in results.cells:
        row = [arm]
        for measure in measures:
            own = values(results, arm, measure, env)
            row.append(_figure(list(own.values())))
            if measure in COMPARED:
                against = None
                if arm != results.reference:
                    against = difference(own, values(results, results.reference, measure, env))
                row += _difference(against)
        made.append([*row, _seconds(results, arm, env)])
    return made


def header(results: Results, measures: Sequence[str] = MEASURES) -> list[str]:
    """Return the titles of the columns."""
    titles = ["encoder"]
    for measure in measures:
        titles.append(TITLES[measure])
        if measure in COMPARED:
            titles += [f"− {results.reference} [95 %]", "up"]
    return [*titles, "CPU s"]


def by_category(results: Results, env: str) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows with macro-F1 and R2 of each category of variables."""
    categories = list(
        dict.fromkeys(
            own["category"]
            for cells in results.cells.values()
            for key, cell in cells.items()
            if key[0] == env
            for own in cell["variables"]
        )
    )
    made = []
    for arm in results.cells:
        row = [arm]
        for category in categories:
            both = [list(values(results, arm, measure, env, category).values()) for measure in COMPARED]
            row.append(" / ".join(f"{np.mean(own):.3f}" if own else "–" for own in both))
        made.append(row)
    return ["encoder", *(category.replace("_", " ") for category in categories)], made


def findings(results: Results) -> list[str]:
    """Return what the paired differences show, in each environment and over all, whatever it is."""
    said = []
    environments = results.environments()
    for env in [*environments, *([None] if len(environments) > 1 else [])]:
        for measure in COMPARED:
            told: dict[str, list[str]] = {}
            for arm in results.cells:
                if arm == results.reference:
                    continue
                found = difference(values(results, arm, measure, env), values(results, results.reference, measure, env))
                if found is not None:
                    told.setdefault(found.finding, []).append(arm)
            place = "all games and seeds as pairs" if env is None else env
            said += [
                f"{place}, {TITLES[measure]} against {results.reference}, {finding}: {', '.join(arms)}"
                for finding, arms in told.items()
            ]
    return said


def notes(results: Results) -> list[str]:
    """Return what a reader must know: data, dropped variables, and probes or trainings that had not converged."""
    said: list[str] = []
    for env in results.environments():
        cells = [(arm, cell) for arm, own in results.cells.items() for key, cell in own.items() if key[0] == env]
        data = {cell["seed"]: cell["data"] for _, cell in cells}
        seeds = sorted(data)
        for name, title in (("frames", "frames of training, validation and test"), ("episodes", "episodes of each")):
            said.append(f"{env}, {title}: " + "; ".join(" + ".join(map(str, data[seed][name])) for seed in seeds))
        dropped = sorted({name for own in data.values() for name in own["dropped"]})
        said.append(
            f"{env}, duplicates left out of validation and test: "
            + "; ".join(" + ".join(map(str, data[seed]["duplicates"])) for seed in seeds)
            + (f". Variables of too little entropy: {', '.join(dropped)}" if dropped else "")
        )
        constant = sorted({name for own in data.values() for name in own["constant"]})
        if constant:
            said.append(
                f"{env}, variables that are constant in a test split, and left out there: {', '.join(constant)}"
            )
        for arm in results.cells:
            fits = [own["converged"] for a, cell in cells if a == arm for own in cell["variables"]]
            if fits and sum(fits) < len(fits):
                said.append(f"{env}, {arm}: {len(fits) - int(sum(fits))} of {len(fits)} classifiers had not converged")
        late = [cell["seed"] for _, cell in cells if cell["training"].get("stopped_early") == 0.0]
        if late:
            said.append(f"{env}: supervised training was still improving at its last step, seeds {sorted(set(late))}")
    return said


def as_markdown(results: Results) -> str:
    """Return everything as a Markdown page."""
    lines = ["# Linear probes", ""]
    environments = results.environments()
    for env in environments:
        lines += [f"## {env}", "", *_markdown(header(results), rows(results, env)), ""]
        titles, made = by_category(results, env)
        lines += ["macro-F1 / R² by category of variables:", "", *_markdown(titles, made), ""]
    if len(environments) > 1:
        lines += ["## All games", "", "Pairs are games and seeds.", ""]
        lines += [*_markdown(header(results), rows(results, None)), ""]
    lines += [*(f"* {sentence}" for sentence in (*findings(results), *notes(results))), ""]
    return "\n".join(lines)


def as_values(results: Results) -> dict[str, Any]:
    """Return every figure for `results.json`: by environment, arm and measure, by seed and variable."""
    found: dict[str, Any] = {}
    for env in results.environments():
        found[env] = {}
        for arm, cells in results.cells.items():
            own = {key[1]: cell for key, cell in cells.items() if key[0] == env}
            if not own:
                continue
            found[env][arm] = {
                measure: {
                    "mean_by_seed": {str(seed): mean(cell, measure) for seed, cell in own.items()},
                    "difference": _plain(
                        difference(values(results, arm, measure, env), values(results, results.reference, measure, env))
                        if arm != results.reference
                        else None
                    ),
                    "variables": {
                        name: [
                            one[measure] for cell in own.values() for one in cell["variables"] if one["name"] == name
                        ]
                        for name in dict.fromkeys(one["name"] for cell in own.values() for one in cell["variables"])
                    },
                }
                for measure in MEASURES
            }
    return {
        "reference": results.reference,
        "environments": found,
        "findings": findings(results),
        "notes": notes(results),
    }


def show(results: Results, console: Console) -> None:
    """Print the tables, findings and notes."""
    environments = results.environments()
    for env in [*environments, *([None] if len(environments) > 1 else [])]:
        table = Table(title=env or "all games", title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column, title in enumerate(header(results, COMPARED)):
            table.add_column(title, justify="right" if column else "left", no_wrap=True)
        for row in rows(results, env, COMPARED):
            table.add_row(*row)
        console.print(table)
    for sentence in findings(results):
        console.print(sentence, soft_wrap=True)
    for sentence in notes(results):
        console.print(f"note: {sentence}", soft_wrap=True, style="dim")


def _plain(found: Difference | None) -> dict[str, Any] | None:
    return None if found is None else {**found._asdict(), "finding": found.finding}


def _markdown(titles: list[str], made: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles)]
    return lines + [f"| {' | '.join(row)} |" for row in made]


def _figure(numbers: list[float]) -> str:
    if not numbers:
        return "–"
    spread = f" ± {np.std(numbers, ddof=1):.3f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.3f}{spread}"


def _difference(found: Difference | None) -> list[str]:
    if found is None:
        return ["–", ""]
    interval = "" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return [f"{found.mean:+.3f}{interval}", f"{found.up}/{found.pairs}"]


def _seconds(results: Results, arm: str, env: str | None) -> str:
    own = [cell["seconds"] for key, cell in results.cells[arm].items() if env in (None, key[0])]
    return f"{np.mean([one['training_cpu'] + one['probing_cpu'] for one in own]):.0f}" if own else "–"
