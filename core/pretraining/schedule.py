"""How the learning rate moves, and which parameters decay."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

OptimizerFactory = Callable[[Iterable[dict[str, Any]]], Optimizer]
"""What a YAML of `configs/optimizer/` describes: `optimizer(parameter groups) -> torch.optim.Optimizer`."""

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


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Return the trained parameters in two groups, of which the second has no weight decay (and no LARS scaling).

    Without decay are biases and the scales of norms: parameters with one dimension or none (Goyal et al. 2017, 5.1).
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    others = [parameter for parameter in trained if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


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
