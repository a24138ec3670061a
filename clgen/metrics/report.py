"""What :func:`evaluate_images` found, as a table, a page and JSON. Pure functions but for `show` and `write`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ...core.files import write_json

LOWER = ("frechet", "kernel", "intra_class_frechet", "class_variation", "missing_classes")
NAMES = {
    "frechet": "Fréchet distance", "kernel": "kernel distance", "intra_class_frechet": "intra-class Fréchet distance",
    "class_variation": "total variation of classes", "missing_classes": "classes missing",
    "class_agreement": "taken for the class asked",
}  # fmt: skip


def header(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the titles of the columns, which say over how many images each is."""
    counts = found["counts"]
    n = counts["same_n"]
    return (
        "metric", "extractor", f"all: {counts['fake']} against {counts['real']}", f"{n} against {n}",
        f"real: {n} against {n}",
    )  # fmt: skip


def rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows below :func:`header`, one for each metric and extractor; an arrow says which way is better."""
    table = []
    for name, value in found["metrics"].items():
        metric, _, extractor = name.partition("/")
        arrow = "↓" if metric in LOWER else "↑"
        drawn = (found[which].get(name) for which in ("same_n", "floor"))
        whole = _number(value) + (f" ± {_number(found['spread'][name])}" if name in found["spread"] else "")
        table.append((f"{NAMES.get(metric, metric)} {arrow}", extractor, whole, *map(_drawn, drawn)))
    return table


def explained(found: Mapping[str, Any]) -> list[str]:
    """Return in sentences what the columns are, and the notes."""
    counts = found["counts"]
    others = "held-out real images" if counts["held_out"] else "other real images of the same set"
    draws = "draw" if counts["draws"] == 1 else "draws"
    return [
        f"the last column is the floor: {others} in the place of the generated ones, at the same N; mean ± standard "
        f"deviation over {counts['draws']} {draws}",
        "kernel distance over all images: ± the standard deviation over its subsets",
        *found["notes"],
    ]


def as_markdown(found: Mapping[str, Any], title: str) -> str:
    """Return table and notes as a Markdown page."""
    titles = header(found)
    lines = [f"# {title}", "", f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles)]
    lines += [f"| {' | '.join(row)} |" for row in rows(found)]
    for name, shares in found["classes"].items():
        lines += ["", f"Share of each class by {name}:", "", f"| | {' | '.join(shares['names'])} |"]
        lines += ["|" + " --- |" * (len(shares["names"]) + 1)]
        lines += [f"| {which} | {' | '.join(f'{x:.3f}' for x in shares[which])} |" for which in ("real", "fake")]
    lines += ["", *(f"* {sentence[0].upper()}{sentence[1:]}." for sentence in explained(found))]
    return "\n".join(lines) + "\n"


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print table and notes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, title in enumerate(header(found)):
        table.add_column(title, justify="left" if column < 2 else "right", no_wrap=True)
    for row in rows(found):
        table.add_row(*row)
    console.print(table)
    for sentence in explained(found):
        console.print(sentence, soft_wrap=True, style="dim")


def write(found: Mapping[str, Any], folder: Path, title: str) -> list[Path]:
    """Write `result.json` and `table.md` into a folder, and return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", found)
    (folder / "table.md").write_text(as_markdown(found, title), encoding="utf-8")
    return [folder / "result.json", folder / "table.md"]


def _drawn(value: Mapping[str, float] | None) -> str:
    return "–" if value is None else f"{_number(value['mean'])} ± {_number(value['sd'])}"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
