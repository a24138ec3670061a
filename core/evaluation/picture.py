"""A picture of features in the plane. Shape legend: N examples, D features, L labels of one example."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..check import choice
from .geometry import evenly_spaced
from .subject import Features

# Okabe and Ito's colours, told apart with any colour vision; markers tell further classes apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#F0E442")
MARKERS = ("o", "^", "s", "v", "D", "P", "X", "*")
NAMED = 20  # classes with a name beside the picture
METHODS = {"tsne": "t-SNE", "pca": "PCA"}


def plane(rows_ND: np.ndarray, method: str) -> np.ndarray:
    """Return `(N, 2)`: features standardised, then laid into the plane by `tsne` or `pca`, with a seed of their own.

    t-SNE (van der Maaten and Hinton 2008) starts from principal components; its distances between groups, and their
    sizes, mean nothing.

    Raises:
        ValueError: another method.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    choice("picture", method, METHODS)
    sd_D = rows_ND.std(0)
    rows_ND = (rows_ND - rows_ND.mean(0)) / np.where(sd_D > 0, sd_D, 1.0)
    if min(rows_ND.shape) < 2:
        return np.pad(rows_ND[:, :2], ((0, 0), (0, max(0, 2 - rows_ND.shape[1]))))
    if method == "pca" or len(rows_ND) < 4:
        return PCA(2, random_state=0).fit_transform(rows_ND)
    rows_ND = PCA(min(50, *rows_ND.shape), random_state=0).fit_transform(rows_ND)
    return TSNE(2, init="pca", perplexity=min(30.0, (len(rows_ND) - 1) / 3), random_state=0).fit_transform(rows_ND)


def draw(
    embeddings: Mapping[str, Features], path: Path, *, method: str, classes: Sequence[str] = (), points: int = 2000
) -> None:
    """Save a picture with the test features of each arm beside each other, coloured by class.

    Args:
        embeddings: by arm.
        path: the PNG.
        method: `tsne` or `pca`.
        classes: names of the classes.
        points: at most so many of each, evenly spaced.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(embeddings) + 1.2, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(embeddings), squeeze=False)[0]
    for axes, (arm, features) in zip(panels, embeddings.items(), strict=True):
        chosen = evenly_spaced(len(features.rows), points)
        _scatter(axes, plane(features.rows[chosen], method), features.labels[chosen], classes)
        axes.set(title=arm, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    handles, names = panels[0].get_legend_handles_labels()
    if 0 < len(handles) <= NAMED:
        figure.legend(handles, names, loc="outside right center", frameon=False, markerscale=2)
    figure.suptitle(f"{METHODS[method]} of the test split's features", fontsize=10)
    unfinished = path.with_suffix(".unfinished.png")
    figure.savefig(unfinished)
    unfinished.replace(path)


def _scatter(axes: Any, at_N2: np.ndarray, labels_N: np.ndarray, classes: Sequence[str]) -> None:
    if labels_N.ndim > 1:
        axes.scatter(*at_N2.T, s=6, color=COLOURS[0], linewidths=0)
        return
    for i, name in enumerate(np.unique(labels_N[labels_N >= 0])):
        own_N = labels_N == name
        title = classes[name] if name < len(classes) else str(name)
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]
        axes.scatter(*at_N2[own_N].T, s=8, color=colour, marker=marker, linewidths=0, label=title)
    if (labels_N < 0).any():
        axes.scatter(*at_N2[labels_N < 0].T, s=4, color="#BBBBBB", linewidths=0, label="unknown", zorder=0)
