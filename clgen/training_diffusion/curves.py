"""The picture of a run: probe accuracy and denoising error over the noise level, beside another run's if one likes."""

import json
from pathlib import Path
from typing import Any

import numpy as np


def draw(curves: Path, picture: Path, beside: Path | None = None) -> None:
    """Save the picture.

    Args:
        curves: `levels.json` of the run.
        picture: the PNG.
        beside: that of another run.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    runs = [(curves.resolve().parent.name, curves, "C0", "-")]
    runs += [] if beside is None else [(beside.resolve().parent.name, beside, "C1", "--")]
    for name, path, colour, line in runs:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "levels" in found:
            left.plot(found["levels"], found["accuracy"], line, color=colour, marker="o", markersize=4, label=name)
        edges, mean, deviation = (np.array(found[key]) for key in ("edges", "error", "deviation"))
        middle = (edges[1:] + edges[:-1]) / 2
        right.plot(middle, mean, line, color=colour, marker="o", markersize=4, label=name)
        right.fill_between(middle, mean - 2 * deviation, mean + 2 * deviation, color=colour, alpha=0.2)
    left.set(xlabel="noise level t / T", ylabel="linear probe, % right", xlim=(0, 1))
    right.set(xlabel="noise level t / T", ylabel="denoising error", yscale="log", xlim=(0, 1))
    if len(runs) > 1:
        right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(picture)
