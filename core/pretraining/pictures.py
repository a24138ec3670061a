"""The picture of what a method is shown: a few examples, each with its two views."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data import DataSet
from ..views import TwoViews

SHOWN = 12


def draw_views(views: TwoViews, data: DataSet, seed: int, path: Path) -> None:
    """Save a picture of the first examples of a data set above their two views; nothing for vectors.

    Args:
        views: on the CPU.
        data: of images `(C, H, W)`; of more than three channels the last is shown.
        seed: of the views.
        path: the PNG.
    """
    if len(data.shape) != 3:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    images = data.__getitems__(list(range(min(SHOWN, len(data))))).inputs
    first, second = views(images, torch.Generator().manual_seed(seed))
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    rows = [images.float() / 255, first.cpu() * std + mean, second.cpu() * std + mean]
    figure = Figure(figsize=(len(images), 3.1), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(3, len(images), squeeze=False)
    for line, row, name in zip(grid, rows, ("image", "view 1", "view 2"), strict=True):
        for axes, image in zip(line, row, strict=True):
            axes.imshow(_shown(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    figure.savefig(path)


def _shown(image: Tensor) -> np.ndarray:
    """Return an image `(H, W, 3)` or `(H, W)` in [0, 1]."""
    image = image.clamp(0, 1)
    return (image.permute(1, 2, 0) if len(image) == 3 else image[-1]).numpy()
