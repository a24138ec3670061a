"""What a comparison found: paired statistics, one table, the findings in words. Pure functions over runs' results.

Of each run count the area under the learning curve (mean of the curve at a fifth, two fifths, … of the run), the final
return (mean of the last 100 training episodes), the mean return of the final evaluation, its success where the
environment knows one, and its cost.

`results[arm][seed]` is what a run's `result.json` holds; the first arm is the reference, called base below.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rich.console import Console

from ..core.comparison import table
from ..core.comparison.table import Results, cost, decimals, failures, page, spread, summary
from ..core.paired import RULE, paired

MEASURES = {
    "area": "area under curve",
    "final_return": "final return",
    "evaluation": "final evaluation",
    "success": "final success, %",
    "cpu_seconds": "CPU-seconds",
}
NO_CONTROLS: Mapping[str, str] = MappingProxyType({})
HEADER = ("measure", "arm", "runs", "mean ± sd", "IQM", "difference to base [95 %]", "seeds up")


def values(results: Results, arm: str, measure: str) -> dict[int, float]:
    """Return one measure of the arm's completed runs by seed, without runs that could not say it."""
    found = {seed: result.get(measure) for seed, result in results[arm].items() if result["status"] == "completed"}
    plain = {seed: value["mean"] if isinstance(value, Mapping) else value for seed, value in found.items()}
    return {seed: float(value) for seed, value in plain.items() if value is not None}


def measures(results: Results) -> dict[str, str]:
    """Return the measures of these runs and their titles; success only where some run has it."""
    successes = any(values(results, arm, "success") for arm in results)
    return {measure: title for measure, title in MEASURES.items() if measure != "success" or successes}


def identical_weights(results: Results, arm: str) -> tuple[int, int]:
    """Return in how many seeds the arm ended with the very weights of base, and in how many both completed."""
    base = results[next(iter(results))]
    hashes = [
        (result["weights"], base[seed]["weights"])
        for seed, result in results[arm].items()
        if result["status"] == "completed" and base.get(seed, {}).get("status") == "completed"
    ]
    return sum(own == other for own, other in hashes), len(hashes)


def rows(results: Results) -> list[tuple[str, ...]]:
    """Return the table's rows below :data:`HEADER`: every measure, and below it every arm."""
    base, *others = results
    found: list[tuple[str, ...]] = []
    for measure, title in measures(results).items():
        reference, digits = values(results, base, measure), digits_of(results, measure)
        for arm in results:
            own = values(results, arm, measure)
            numbers = list(own.values())
            difference = paired(own, reference) if arm != base else None
            change = "" if arm == base else "–" if difference is None else difference.text(digits)
            if measure == "cpu_seconds":
                change = "" if not (numbers and reference) else f"{cost(own, reference):.2f} x base"
            up = "" if difference is None or measure == "cpu_seconds" else f"{difference.up}/{difference.pairs}"
            done = f"{len(numbers)}/{len(results[arm])}"
            found.append((title if arm == base else "", arm, done, *spread(numbers, digits), change, up))
    for arm in others:
        same, pairs = identical_weights(results, arm)
        title = "weights as base" if arm == others[0] else ""
        found.append((title, arm, f"{pairs}/{len(results[arm])}", f"{same}/{pairs} seeds", "", "", ""))
    return found


def digits_of(results: Results, measure: str) -> int:
    """Return how many decimals a measure is shown with."""
    return decimals(value for arm in results for value in values(results, arm, measure).values())


def findings(results: Results, controls: Mapping[str, str] = NO_CONTROLS) -> list[str]:
    """Return what was found, whatever it is: each arm against base and its control, the last against those in between.

    An arm that ended with the weights of base everywhere is said to be just that.
    """
    base, *others = results
    sentences = []
    for arm in others:
        same, pairs = identical_weights(results, arm)
        if pairs and same == pairs:
            sentences.append(f"{arm}: weights bit-identical to {base} in {same} of {pairs} seeds")
        else:
            sentences.append(_finding(results, arm, base))
    last = others[-1] if others else base
    inert = len(set(identical_weights(results, last))) == 1  # it differs from the others as base does
    for between in others[:-1]:
        same, pairs = identical_weights(results, between)
        if not inert and pairs and same < pairs and values(results, last, "cpu_seconds"):
            sentences.append(_finding(results, last, between))
    for arm, control in controls.items():
        if arm in results and control in others and (inert or arm != last):
            sentences.append(_finding(results, arm, control))
    return sentences


def _finding(results: Results, arm: str, reference: str) -> str:
    parts = []
    for measure, title in (("area", "area"), ("final_return", "final return"), ("success", "final success")):
        difference = paired(values(results, arm, measure), values(results, reference, measure))
        if difference is not None:
            finding = difference.in_words("a gain", "a loss")
            shown = difference.text(digits_of(results, measure))
            parts.append(f"{title} {shown}, {difference.up} of {difference.pairs} seeds up: {finding}")
    return f"{arm} − {reference}: " + ("; ".join(parts) if parts else "nothing to compare, no seed completed in both")


def as_markdown(name: str, results: Results, controls: Mapping[str, str] = NO_CONTROLS) -> str:
    """Return the table, the findings and the failures as a Markdown page."""
    return page(name, HEADER, rows(results), [*findings(results, controls), RULE], failures(results))


def as_values(name: str, results: Results, controls: Mapping[str, str] = NO_CONTROLS) -> dict[str, Any]:
    """Return everything the table is made of as plain values, for `results.json`."""
    base = next(iter(results))
    arms: dict[str, Any] = {}
    for arm in results:
        same, pairs = identical_weights(results, arm)
        arms[arm] = {"planned": len(results[arm]), "weights_identical_to_base": {"seeds": same, "of": pairs}}
        for measure in measures(results):
            own = values(results, arm, measure)
            arms[arm][measure] = summary(own, paired(own, values(results, base, measure)) if arm != base else None)
    said = findings(results, controls)
    return {"name": name, "base": base, "arms": arms, "findings": said, "failures": failures(results)}


def show(results: Results, console: Console, controls: Mapping[str, str] = NO_CONTROLS) -> None:
    """Print table, failures and findings."""
    table.show(HEADER, rows(results), [*findings(results, controls), RULE], failures(results), console)
