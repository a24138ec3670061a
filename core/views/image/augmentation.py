"""One augmented view of images. Shape legend: N images, C channels, H x W their size, D numbers an image."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ...check import shape as shape_of
from ..draw import uniform
from .operation import Operation

CACHED_BYTES = 2**22
"""On a CPU as many images go through all steps at once as fit into about this much memory: a core's cache."""


def keep_freed_memory() -> None:
    """Let this process keep freed blocks of up to 32 MB for the next ones, instead of returning them to the system.

    glibc learns its threshold from the largest block freed so far, which this one, never written to, raises to its
    maximum. Otherwise the system clears the pages of every intermediate result anew, which takes longer than computing
    it: without this a batch took 1.3 to 2 times as long. Elsewhere it does nothing. A process that trains usually has
    freed such a block already.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


class ImageAugmentation:
    """Random operations one after the other on a batch of images, with parameters of its own for every image.

    Images become float32 in [0, 1], go through the steps, and are normalised: `(x - mean) / std`. The view is a pure
    function of the images and of `draws` uniform numbers an image, so that a row of the result depends on that row
    alone, whichever batch it is in.

    Args:
        steps: operations by name, in the order in which they are applied; None leaves one out, so that a config can
            switch off a step of another. See `Operation` for what a step of one's own must do.
        shape: `(C, H, W)` of the images.
        mean: one number a channel, for images in [0, 1].
        std: likewise, > 0.

    Attributes:
        draws: D, how many uniform numbers make the view of one image.
        shape: `(C, H', W')` of the views.

    Raises:
        ValueError: shape, mean and std disagree; a step cannot work on images of this shape; called on images of
            another shape, or neither uint8 nor floating.
    """

    def __init__(
        self,
        steps: Mapping[str, Operation | None],
        *,
        shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        keep_freed_memory()
        self.takes = tuple(shape)
        if len(self.takes) != 3:
            raise ValueError(f"ImageAugmentation needs images, shape (C, H, W), got {self.takes}")
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != self.takes[0]:
                raise ValueError(f"{name} must be one number a channel, {self.takes[0]} in all, got {list(values)}")
        if min(std) <= 0:
            raise ValueError(f"std must be > 0, got {list(std)}")
        self.steps = tuple(step for step in steps.values() if step is not None)
        self.draws = sum(step.draws for step in self.steps)
        scale_C, offset_C = [1 / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
        self._normalise_2C11 = torch.tensor([scale_C, offset_C], dtype=torch.float32).view(2, -1, 1, 1)
        self._on_device = {torch.device("cpu"): self._normalise_2C11}
        self._sizes: list[tuple[int, int]] = []
        x = torch.zeros(1, *self.takes)
        for step in self.steps:  # one image goes through, so that a step that cannot work says so now
            self._sizes.append((x.shape[2], x.shape[3]))
            x = step(x, *step.parameters(torch.zeros(1, step.draws), self._sizes[-1]))
        self.shape = tuple(x.shape[1:])

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a view of images `(N, C, H, W)`, uint8 or floating in [0, 1]: float32, normalised."""
        return self.apply(x, uniform(len(x), self.draws, generator, x.device))

    @torch.no_grad()
    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the view `(N, C, H', W')` that the numbers `u` `(N, D)` in [0, 1) make of images `x`."""
        self._check(x, u)
        if x.device not in self._on_device:  # once, not for every batch: a copy to a GPU waits for it
            self._on_device[x.device] = self._normalise_2C11.to(x.device)
        scale_C11, offset_C11 = self._on_device[x.device]
        parameters = self._parameters(u)
        out = torch.empty(len(x), *self.shape, dtype=torch.float32, device=x.device)
        for rows in self._chunks(x):
            part = x[rows].to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            if x.dtype == torch.uint8:
                part.mul_(1 / 255)
            for step, its_parameters in zip(self.steps, parameters, strict=True):
                part = step(part, *(one[rows] for one in its_parameters))
            torch.mul(part, scale_C11, out=out[rows]).add_(offset_C11)
        return out

    def _parameters(self, u: Tensor) -> list[tuple[Tensor, ...]]:
        numbers = u.split([step.draws for step in self.steps], 1)
        steps = zip(self.steps, numbers, self._sizes, strict=True)
        return [step.parameters(its_numbers, size) for step, its_numbers, size in steps]

    def _chunks(self, x: Tensor) -> Iterator[slice]:
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            yield slice(None)
            return
        rows = max(1, CACHED_BYTES // (4 * max(math.prod(self.takes), math.prod(self.shape))))
        for start in range(0, len(x), rows):
            yield slice(start, start + rows)

    def _check(self, x: Tensor, u: Tensor) -> None:
        if x.shape[1:] != self.takes or not (x.dtype == torch.uint8 or x.is_floating_point()):
            found = f"{x.dtype} {shape_of(x)}"
            raise ValueError(f"the view needs uint8 or floating images of shape {self.takes}, got a batch {found}")
        if u.shape != (len(x), self.draws):
            raise ValueError(f"the view needs {self.draws} numbers for each of {len(x)} images, got {shape_of(u)}")
