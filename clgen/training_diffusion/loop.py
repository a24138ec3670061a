"""Small parts of a training loop."""

import time

import torch
from accelerate import Accelerator

from ...core.interruption import Interruption


class Clock:
    """Seconds since it was made, and images a second.

    Args:
        images: of a step.
        begun: step at which it was made.
    """

    def __init__(self, images: int, begun: int) -> None:
        self.images, self.begun, self.step, self._start = images, begun, begun, time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds."""
        return time.perf_counter() - self._start

    def images_per_second(self) -> float:
        """Return the images of all steps by the seconds."""
        return (self.step - self.begun) * self.images / self.seconds()


def agreed(accelerator: Accelerator, interruption: Interruption, ask: bool) -> bool:
    """Return whether to stop: several processes must agree, and ask each other only now and then."""
    if accelerator.num_processes == 1:
        return interruption.look() is not None
    if not ask:
        return False
    flag = torch.tensor(float(interruption.look() is not None), device=accelerator.device)
    return float(accelerator.reduce(flag, "sum")) > 0
