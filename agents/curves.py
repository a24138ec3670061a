"""The picture of a comparison: mean learning curve of each arm with a 95 % band over seeds."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..core.colours import line


def band(curves_RA: np.ndarray, resamples: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95 % percentile-bootstrap interval of the mean over runs, at each point.

    Args:
        curves_RA: `(R, A)` one curve per run; NaN where a run has no value yet.
        resamples: of the runs, drawn with a generator of its own.

    Returns:
        Two arrays `(A,)`; NaN where no run has a value.
    """
    runs = len(curves_RA)
    drawn = curves_RA[np.random.default_rng(0).integers(runs, size=(resamples, runs))]
    counts = np.isfinite(drawn).sum(1)
    means = np.where(counts > 0, np.nansum(drawn, 1) / np.maximum(counts, 1), np.nan)
    known = np.isfinite(curves_RA).any(0)
    low, high = np.full(curves_RA.shape[1], np.nan), np.full(curves_RA.shape[1], np.nan)
    low[known], high[known] = np.nanpercentile(means[:, known], [2.5, 97.5], axis=0)
    return low, high


def draw(
    curves: Mapping[str, np.ndarray],
    at: np.ndarray,
    title: str,
    path: Path,
    ylabel: str = "return, mean of the last 100 training episodes",
) -> None:
    """Save the picture.

    Args:
        curves: `(R, A)` by arm, one curve per completed run.
        at: `(A,)` environment steps of the points.
        title: above the picture.
        path: the PNG.
        ylabel: beside it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for i, (arm, curves_RA) in enumerate(curves.items()):
        known = np.isfinite(curves_RA).any(0)
        if not known.any():
            continue
        steps, drawn = at[known], line(i)
        low, high = band(curves_RA)
        axes.fill_between(steps, low[known], high[known], color=drawn["color"], alpha=0.15, linewidth=0)
        mean = np.nanmean(curves_RA[:, known], axis=0)
        label = f"{arm} ({len(curves_RA)} runs)"
        axes.plot(steps, mean, **drawn, linewidth=2, label=label)
    axes.set(title=title, xlabel="environment steps", ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_xlim(left=0)
    if axes.lines:
        axes.legend(frameon=False)
    figure.savefig(path)
