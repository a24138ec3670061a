"""What a comparison found, as a table and as plain values. Pure functions of a `Comparison`."""

from typing import Any

from rich.console import Console
from rich.table import Table

from ..paired import ENOUGH, Difference
from .evaluate import Comparison
from .statistics import Figure

UNITS = "accuracies and F1 in percent; ± standard deviation over n seeds"


def header(found: Comparison, reference: str | None) -> tuple[str, ...]:
    """Return the titles of the columns: the measure, each arm, and the first arm's difference to the reference."""
    first = next(iter(found.figures))
    change = () if reference is None else (f"{first} − {reference} [95 %]", "seeds up")
    return ("measure", *found.figures, *change)


def rows(found: Comparison, reference: str | None) -> list[tuple[str, ...]]:
    """Return the rows below `header`, one a measure."""
    first = next(iter(found.figures))
    differences = {} if reference is None else found.differences(first, reference)
    table = []
    for measure in dict.fromkeys(name for own in found.figures.values() for name in own):
        figures = [own.get(measure) for own in found.figures.values()]
        decimals = 1 if max(abs(figure.mean) for figure in figures if figure is not None) >= 10 else 3
        row = [measure.replace("_", " "), *(_figure(figure, decimals) for figure in figures)]
        if reference is not None:
            row += _difference(differences.get(measure), decimals)
        table.append(tuple(row))
    return table


def findings(found: Comparison, reference: str | None) -> list[str]:
    """Return in words what the intervals show, whatever it is, one sentence for each finding."""
    if reference is None:
        return []
    first = next(iter(found.figures))
    by_finding: dict[str, list[str]] = {}
    for measure, difference in found.differences(first, reference).items():
        by_finding.setdefault(difference.finding, []).append(measure.replace("_", " "))
    return [f"{first} against {reference}, {finding}: {', '.join(names)}" for finding, names in by_finding.items()]


def as_markdown(found: Comparison, reference: str | None, title: str) -> str:
    """Return the table, findings and notes as a Markdown page."""
    titles = header(found, reference)
    lines = [f"# {title}", "", f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles)]
    lines += [f"| {' | '.join(row)} |" for row in rows(found, reference)]
    lines += ["", f"{UNITS[0].upper()}{UNITS[1:]}.", ""]
    lines += [f"* {sentence}" for sentence in (*findings(found, reference), *found.notes)]
    return "\n".join(lines) + "\n"


def as_values(found: Comparison) -> dict[str, Any]:
    """Return every figure, and the first arm's differences to each of the others, for JSON."""
    first, *others = found.figures
    return {
        "units": UNITS,
        "arms": {arm: {name: figure.as_values() for name, figure in own.items()} for arm, own in found.figures.items()},
        "differences": {
            f"{first} - {other}": {
                name: {**difference._asdict(), "finding": difference.finding}
                for name, difference in found.differences(first, other).items()
            }
            for other in others
        },
        "notes": list(found.notes),
    }


def show(found: Comparison, reference: str | None, console: Console) -> None:
    """Print table, findings and notes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, title in enumerate(header(found, reference)):
        table.add_column(title, justify="right" if column else "left", no_wrap=True)
    for row in rows(found, reference):
        table.add_row(*row)
    console.print(table)
    console.print(UNITS, style="dim")
    for sentence in findings(found, reference):
        console.print(sentence, soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True)


def spread_of(checkpoints: int, seeds: int) -> list[str]:
    """Return what the spread over seeds is made of, so that nobody takes it for more."""
    said = []
    if checkpoints == 1 and seeds > 1:
        said.append(
            "one checkpoint: the spread is that of drawn labels, episodes and random encoders, not of pretraining; "
            "give several, pretrained with different seeds, for that"
        )
    if seeds < ENOUGH:
        said.append(f"{seeds} seeds: fewer than {ENOUGH} are too few for an interval to mean much")
    return said


def _figure(figure: Figure | None, decimals: int) -> str:
    if figure is None:
        return "–"
    spread = "" if figure.sd is None else f" ± {figure.sd:.{decimals}f}"
    return f"{figure.mean:.{decimals}f}{spread}" + (f" (n={len(figure.by_seed)})" if figure.sd is not None else "")


def _difference(difference: Difference | None, decimals: int) -> tuple[str, str]:
    if difference is None:
        return "–", ""
    interval = ""
    if difference.low is not None and difference.high is not None:
        interval = f" [{difference.low:.{decimals}f}, {difference.high:.{decimals}f}]"
    return f"{difference.mean:+.{decimals}f}{interval}", f"{difference.up}/{difference.pairs}"
