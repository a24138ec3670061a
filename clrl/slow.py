"""Some parameters of an optimizer learn more slowly than the others, whatever the optimizer and its schedule."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from torch import nn
from torch.optim import Optimizer

SCALE = "learning_rate_scale"


def slow_down(module: nn.Module, scale: float) -> None:
    """Mark the parameters of a module for a :class:`SlowOptimizer`."""
    for parameter in module.parameters():
        setattr(parameter, SCALE, scale)


class SlowOptimizer:
    """Stands in the place of an optimizer's class: what it makes steps marked parameters with a scaled learning rate.

    Each step multiplies the learning rate that it finds, so that a schedule which writes one rate into all parameter
    groups (Stable-Baselines3's does) keeps the ratio. It equals the class in its place, since policies look for the
    optimizer by comparing classes (PPO's gives Adam another epsilon).

    Args:
        optimizer: the class.
    """

    def __init__(self, optimizer: type[Optimizer]) -> None:
        self.optimizer = optimizer

    def __call__(self, params: Iterable[nn.Parameter], **kwargs: Any) -> Optimizer:
        """Return an optimizer whose first parameter group learns at the full rate."""
        groups: dict[float, list[nn.Parameter]] = {1.0: []}
        for parameter in params:
            groups.setdefault(getattr(parameter, SCALE, 1.0), []).append(parameter)
        kind = _slowed(self.optimizer)  # type: ignore[arg-type]
        return kind([{"params": group, SCALE: scale} for scale, group in groups.items()], **kwargs)

    def __eq__(self, other: object) -> bool:
        return (other.optimizer if isinstance(other, SlowOptimizer) else other) is self.optimizer

    def __hash__(self) -> int:
        return hash(self.optimizer)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.optimizer.__name__})"


@lru_cache
def _slowed(optimizer: type[Optimizer]) -> type[Optimizer]:
    class Slowed(optimizer):  # type: ignore[misc, valid-type]
        def step(self, *args: Any, **kwargs: Any) -> Any:
            rates = [group["lr"] for group in self.param_groups]
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate * group[SCALE]
            try:
                return _unhooked(optimizer.step)(self, *args, **kwargs)
            finally:
                for group, rate in zip(self.param_groups, rates, strict=True):
                    group["lr"] = rate

    Slowed.__name__ = Slowed.__qualname__ = f"Slow{optimizer.__name__}"
    return Slowed


def _unhooked(step: Any) -> Any:
    """Torch wraps the step of every optimizer class into one that calls the hooks; ours is wrapped already."""
    return step.__wrapped__ if getattr(step, "hooked", False) else step
