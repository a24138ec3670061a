"""The pictures of a comparison: differences paired by seed, and what was found at each noise level."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.colours import line
from ..core.comparison.table import Results
from .measures import compared, direction

BETTER, WORSE, NEITHER = "#0072B2", "#D55E00", "#777777"


class Curve(NamedTuple):
    """What one run found at several places: `y` at `x`, and whether y is shown on a logarithmic axis."""

    x: Sequence[float]
    y: Sequence[float]
    xlabel: str
    log: bool = False


def draw_differences(
    results: Results, metrics: Sequence[str], controls: Mapping[str, str], name: str, path: Path
) -> bool:
    """Save a picture with a panel for each metric: a dot for each seed's difference, the mean and its interval.

    Blue is better and orange worse, gray where a metric knows no better. An arm with a control is shown against that
    too, below its difference to base.

    Returns:
        Whether there was something to draw.
    """
    base, *others = results
    pairs = [(arm, other) for arm in others for other in dict.fromkeys((base, controls.get(arm, base)))]
    panels = {metric: [found for pair in pairs for found in compared(results, [metric], *pair)] for metric in metrics}
    panels = {metric: found for metric, found in panels.items() if found}
    if not panels:
        return False
    columns = min(len(panels), 3)
    lines = math.ceil(len(panels) / columns)
    figure, axes = _figure(lines, columns, (4.2 * columns, lines * (1.1 + 0.28 * len(pairs))))
    for panel, (metric, found) in zip(axes, panels.items(), strict=False):
        sign = {"lower": -1, "higher": 1, None: 0}[direction(metric)]
        for height, one in enumerate(found):
            dots = [own for _, own in sorted(one.by_seed.items())]
            colours = [BETTER if sign * dot > 0 else WORSE if sign * dot < 0 else NEITHER for dot in dots]
            panel.scatter(dots, np.full(len(dots), height), c=colours, s=18, alpha=0.7, linewidths=0, zorder=3)
            mean, low, high = one.difference.mean, one.difference.low, one.difference.high
            if low is not None and high is not None:
                panel.plot([low, high], [height, height], color="black", linewidth=1.5, zorder=2)
            panel.plot([mean], [height], "|", color="black", markersize=11, markeredgewidth=2, zorder=4)
        panel.axvline(0, color="black", linewidth=0.8, alpha=0.5)
        panel.set_yticks(range(len(found)), [f"{one.arm} − {one.reference}" for one in found], fontsize=8)
        panel.set_ylim(len(found) - 0.5, -0.5)
        better = direction(metric)
        panel.set_title(metric.replace("_", " ") + (f" ({better} is better)" if better else ""), fontsize=9)
        panel.tick_params(axis="x", labelsize=8)
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    figure.suptitle(f"{name}: differences by seed, mean and 95 % interval", fontsize=10)
    figure.savefig(path)
    return True


def draw_curves(curves: Mapping[str, Mapping[str, Sequence[Curve]]], name: str, path: Path) -> bool:
    """Save a picture with a panel for each curve: the mean of each arm, and thinly that of each seed.

    Args:
        curves: by title and arm, one for each run; those of a title have the same places.
        name: above the picture.
        path: the PNG.

    Returns:
        Whether there was something to draw.
    """
    if not curves:
        return False
    figure, axes = _figure(1, len(curves), (4.6 * len(curves), 3.8))
    for panel, (title, arms) in zip(axes, curves.items(), strict=True):
        for i, (arm, runs) in enumerate(arms.items()):
            drawn = line(i)
            for run in runs:
                panel.plot(run.x, run.y, **drawn, linewidth=0.6, alpha=0.3)
            mean = np.mean([run.y for run in runs], axis=0)
            panel.plot(runs[0].x, mean, **drawn, linewidth=2, label=f"{arm} ({len(runs)} runs)")
            panel.set(xlabel=runs[0].xlabel, yscale="log" if runs[0].log else "linear")
        panel.set_title(title, fontsize=10)
        panel.grid(alpha=0.25)
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(name, fontsize=10)
    figure.savefig(path)
    return True


def _figure(lines: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes
