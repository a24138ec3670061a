"""The picture of a comparison of encoders: one panel for each measure, one group of points for each game."""

from pathlib import Path

import numpy as np

from ...core.colours import COLOURS
from .report import COMPARED, TITLES, Results, values

HATCHES = ("", "///", "...")  # colours come again with another
LOWEST = -1.0  # of an R2; what lies below is drawn there


def draw(results: Results, path: Path) -> None:
    """Save the picture: a point for each seed, a bar for the mean.

    Args:
        results: what is finished.
        path: the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    environments, arms = results.environments(), list(results.cells)
    wide = max(6.0, 1.2 + 0.32 * len(environments) * (len(arms) + 1))
    figure = Figure(figsize=(wide, 6.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(len(COMPARED), 1, sharex=True))
    for axes, measure in zip(panels, COMPARED, strict=True):
        for i, arm in enumerate(arms):
            at, heights = [], []
            for j, env in enumerate(environments):
                own = [max(value, LOWEST) for value in values(results, arm, measure, env).values()]
                if own:
                    place = j * (len(arms) + 1) + i
                    at.append(place)
                    heights.append(float(np.mean(own)))
                    axes.plot([place] * len(own), own, ".", color="#333333", markersize=4, zorder=3)
            colour, hatch = COLOURS[i % len(COLOURS)], HATCHES[i // len(COLOURS) % len(HATCHES)]
            axes.bar(at, heights, width=0.85, color=colour, hatch=hatch, edgecolor="white", alpha=0.75, label=arm)
        axes.set_ylabel(TITLES[measure])
        axes.axhline(0, color="#333333", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    middle = (len(arms) - 1) / 2
    panels[-1].set_xticks([j * (len(arms) + 1) + middle for j in range(len(environments))], environments)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(arms), 5), fontsize=8
    )
    figure.savefig(path)
