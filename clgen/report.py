"""What a comparison of generative runs found: paired statistics, one table, the findings in words. Pure functions.

Of each run count the numbers in `metrics` of its `result.json`, and what it cost. `results[arm][seed]` is what a
`result.json` holds; the first arm is the reference, called base below. An arm may have a second one, its control: the
arm that differs from it by the auxiliary alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.comparison.table import Results, cost, decimals, failures, page, spread, summary
from ..core.paired import ENOUGH, RULE, paired
from .measures import COSTS, compared, direction, values

ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}
HEADER = ("measure", "arm", "runs", "mean ± sd", "IQM", "difference to base [95 %]", "seeds better")
CONTROL_HEADER = ("difference to control [95 %]", "seeds better")


def rows(results: Results, metrics: Sequence[str], controls: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return the table's rows below :func:`header`: every metric, then every cost, and below each every arm."""
    base = next(iter(results))
    found: list[tuple[str, ...]] = []
    for measure in (*metrics, *(name for name in COSTS if values(results, base, name))):
        digits = decimals(value for arm in results for value in values(results, arm, measure).values())
        for arm in results:
            own = values(results, arm, measure)
            title = COSTS.get(measure, measure.replace("_", " ") + ARROWS[direction(measure)]) if arm == base else ""
            row = [title, arm, f"{len(own)}/{len(results[arm])}", *spread(list(own.values()), digits)]
            references = [base, controls.get(arm)] if controls else [base]
            for reference in references:
                row += _change(results, measure, arm, reference, digits)
            found.append(tuple(row))
    return found


def _change(results: Results, measure: str, arm: str, reference: str | None, digits: int) -> tuple[str, str]:
    if reference is None or reference == arm:
        return "", ""
    if measure in COSTS:
        own, other = values(results, arm, measure), values(results, reference, measure)
        return f"{cost(own, other):.2f} x" if own and other else "", ""
    found = next(compared(results, [measure], arm, reference), None)
    if found is None:
        return "–", ""
    return found.difference.text(digits), f"{found.better}/{found.difference.pairs}"


def header(controls: Mapping[str, str]) -> tuple[str, ...]:
    """Return the titles of the columns."""
    return (*HEADER, *CONTROL_HEADER) if controls else HEADER


def findings(results: Results, metrics: Sequence[str], controls: Mapping[str, str]) -> list[str]:
    """Return what was found, whatever it is: each arm against base, and against its control where it has one."""
    base, *others = results
    pairs = [(arm, base) for arm in others]
    pairs += [(arm, control) for arm, control in controls.items() if arm in results and control != base]
    sentences = []
    for arm, reference in pairs:
        by_finding: dict[str, list[str]] = {}
        for found in compared(results, metrics, arm, reference):
            by_finding.setdefault(found.finding, []).append(found.metric.replace("_", " "))
        told = "; ".join(f"{finding}: {', '.join(names)}" for finding, names in sorted(by_finding.items()))
        sentences.append(f"{arm} − {reference}: {told or 'nothing to compare: no metric of a seed in both'}")
    return sentences


def notes(results: Results, metrics: Sequence[str], controls: Mapping[str, str]) -> list[str]:
    """Return the rule of a finding, and what else a reader of the table must know."""
    looks = len(metrics) * (len(results) - 1 + len(controls))
    said = [RULE]
    if (fewest := min(sum(r["status"] == "completed" for r in runs.values()) for runs in results.values())) < ENOUGH:
        said.append(f"Fewer than {ENOUGH} seeds, {fewest} in the arm with the fewest: nothing here is shown yet.")
    if looks > 1:
        said.append(f"{looks} differences are looked at: of 95 % intervals, one in twenty leaves out 0 by chance.")
    return said


def as_markdown(name: str, results: Results, metrics: Sequence[str], controls: Mapping[str, str]) -> str:
    """Return the table, the findings, the notes and the failures as a Markdown page."""
    sentences = [*findings(results, metrics, controls), *notes(results, metrics, controls)]
    return page(name, header(controls), rows(results, metrics, controls), sentences, failures(results))


def as_values(name: str, results: Results, metrics: Sequence[str], controls: Mapping[str, str]) -> dict[str, Any]:
    """Return everything the table is made of as plain values, for `results.json`."""
    base = next(iter(results))
    arms: dict[str, Any] = {}
    for arm in results:
        arms[arm] = {"planned": len(results[arm]), "control": controls.get(arm)}
        for measure in (*metrics, *COSTS):
            own = values(results, arm, measure)
            difference = paired(own, values(results, base, measure)) if arm != base else None
            arms[arm][measure] = summary(own, difference)
            if arm in controls:
                other = paired(own, values(results, controls[arm], measure))
                arms[arm][measure]["difference_to_control"] = None if other is None else other._asdict()
    return {
        "name": name,
        "base": base,
        "better": {metric: direction(metric) for metric in metrics},
        "arms": arms,
        "findings": findings(results, metrics, controls),
        "notes": notes(results, metrics, controls),
        "failures": failures(results),
    }
