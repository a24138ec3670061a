"""Frames as agents see them: grey, and averaged down. Shape legend: H x W size, h x w new size, C channels."""

from functools import lru_cache

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def grey(image: np.ndarray) -> np.ndarray:
    """Return `(H, W, 1)` uint8, the luma 0.299 R + 0.587 G + 0.114 B of an image `(H, W, 3)`; grey ones as they are."""
    return image if image.shape[-1] == 1 else np.rint(image[..., :3] @ LUMA).astype(np.uint8)[..., None]


def resize_by_area(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image `(H, W, C)` uint8 as `(h, w, C)`: each new pixel is the mean of the area it covers.

    The proportions may change. OpenCV's `INTER_AREA`, which Atari wrappers use, computes the same for smaller sizes, to
    within rounding.
    """
    rows, columns = coverage(image.shape[0], size[0]), coverage(image.shape[1], size[1])
    planes = image.transpose(2, 0, 1).astype(np.float32)
    return np.rint(rows @ planes @ columns.T).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


@lru_cache(maxsize=8)
def coverage(old: int, new: int) -> np.ndarray:
    """Return `(new, old)` float32: the share of each old pixel in the stretch that a new one covers; rows sum to 1."""
    edges = np.arange(new + 1) * (old / new)
    starts, ends, pixels = edges[:-1, None], edges[1:, None], np.arange(old)[None]
    shared = np.clip(np.minimum(ends, pixels + 1) - np.maximum(starts, pixels), 0, None)
    return (shared / shared.sum(1, keepdims=True)).astype(np.float32)
