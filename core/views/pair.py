"""Two views of every example. Shape legend: N examples."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .draw import uniform
from .protocol import View

ViewFactory = Callable[..., View]
"""What a view's config describes: `view(shape=..., mean=..., std=...) -> View`, the facts being those of the data."""


class TwoViews:
    """Make the two views of a batch that a pretraining method compares.

    Args:
        first: factory of the view, called with `shape`, `mean` and `std` of the data.
        second: likewise, for methods whose two views differ (BYOL); None takes the first for both.
        shape: of one example.
        mean: one number a channel, for images in [0, 1].
        std: likewise, > 0.
    """

    def __init__(
        self,
        first: ViewFactory,
        second: ViewFactory | None = None,
        *,
        shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.first = first(shape=shape, mean=mean, std=std)
        self.second = self.first if second is None else second(shape=shape, mean=mean, std=std)

    def __call__(
        self, x: Tensor, generator: torch.Generator, start: int = 0, total: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return two views of the rows `[start, start + len(x))` of a batch of `total` rows that processes share.

        Views that can (attribute `draws`) draw the numbers of the whole batch and use their own rows', so that
        processes with the same generator make the very views that one process would make of the whole batch.
        """
        total = len(x) if total is None else total
        return _view(self.first, x, generator, start, total), _view(self.second, x, generator, start, total)


def _view(view: View, x: Tensor, generator: torch.Generator, start: int, total: int) -> Tensor:
    draws = getattr(view, "draws", None)
    if draws is None:
        return view(x, generator)
    numbers = uniform(total, draws, generator, x.device)
    return view.apply(x, numbers[start : start + len(x)])  # type: ignore[attr-defined]
