"""Which rows of a denoising batch are second views of an image, so that no extra forward pass is needed.

Shape legend: B rows of the batch.
"""

import torch
from torch import Tensor

from ...core.check import number, whole


def paired_batch(rows: int, share: float) -> tuple[int, int]:
    """Return how many images and how many second views make a batch of B rows, `images + seconds = rows`.

        images = B / (1 + share), rounded up;    seconds = B - images

    so that a share of the images, as near to the one asked for as whole rows allow, is there at two noise levels. A
    share of 1 halves the images of a batch and so its variety; a share of 1/4 leaves four fifths of them.

    Args:
        rows: B, >= 1.
        share: of the images that get a second view, in [0, 1]. 0 pairs none.

    Raises:
        ValueError: a number out of range.
    """
    rows, share = whole("rows", rows, 1), number("share", share, 0.0, 1.0)
    seconds = min(int(rows * share / (1 + share) + 1e-9), rows // 2)
    return rows - seconds, seconds


def second_views(rows: int, share: float, *, device: torch.device | str | None = None) -> Tensor:
    """Return `(B,)` long: which image of the batch each row shows.

    The first rows show the images 0, 1, ... and the last ones the first images again. Where images come in random
    order, as in training, that is a random choice, and it needs no draw:

        source = second_views(len(images), share)          # (B,), of a batch of B images the last ones go unused
        x, identity = images[source], index[source]
        t = torch.randint(0, steps, (len(x),))              # every row its own noise level, and its own noise

    To use every image that was loaded, load `paired_batch(rows, share)[0]` of them.

    Args:
        rows: B.
        share: see `paired_batch`.
        device: of the result.

    Raises:
        ValueError: a number out of range.
    """
    images, seconds = paired_batch(rows, share)
    every = torch.arange(images, device=device)
    return torch.cat((every, every[:seconds]))


def same_image(identity: Tensor) -> Tensor:
    """Return `(B, B)` bool: whether two rows show the same image. A negative identity is like none.

    Args:
        identity: `(B,)` long, the image's index in the data.
    """
    return (identity.unsqueeze(1) == identity) & (identity >= 0)
