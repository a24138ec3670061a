"""How the learning rate moves, and the optimizer of large batches."""

import math
from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

SCALED_FROM = 256
"""The batch for which a learning rate is stated when it is scaled linearly (Goyal et al. 2017)."""


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Return the factor of the learning rate: linear from 1 / warmup to 1, then half a cosine down to 0.

        (s + 1) / W  for s < W,    (1 + cos(pi (s - W) / (S - W))) / 2  afterwards

    Goyal et al. 2017 (https://arxiv.org/abs/1706.02677, section 2.2) and Loshchilov and Hutter 2017
    (https://arxiv.org/abs/1608.03983, eq. 5 without restarts), as SimCLR trains.

    Args:
        step: s, from 0.
        steps: S, of the whole training.
        warmup: W < S.
    """
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2


def lars(groups: Iterable[dict[str, Any]], **settings: Any) -> Optimizer:
    """Return LARS (You et al. 2017, https://arxiv.org/abs/1708.03888), SimCLR's optimizer of large batches, of timm.

    Groups without weight decay take plain momentum SGD steps.

    Args:
        groups: of parameters.
        settings: of `timm.optim.Lars`: lr, momentum, weight_decay, trust_coeff, nesterov, ...

    Raises:
        ValueError: timm is not installed.
    """
    try:
        from timm.optim import Lars
    except ImportError as error:
        raise ValueError("optimizer=lars needs timm, which is not installed: pip install 'contraux[timm]'") from error
    return Lars(groups, **settings)
