"""Everything random of a training step, as a function of seed, stream and step.

Shape legend: B rows, of all processes.
"""

import numpy as np
import torch
from torch import Tensor

STREAMS = (
    "latents", "perturbation", "mix", "real", "view", "fake", "real_key", "fake_key",
    "generator/latents", "generator/perturbation", "generator/real", "generator/fake", "generator/fake_key",
    "generator/view", "generator/real_key",
)  # fmt: skip


class Draws:
    """Draws the rows of all processes on the CPU, and hands out those of this one.

    So W processes of B / W rows see what one process of B rows would, and a run that goes on sees what it would have.

    Args:
        seed: >= 0.
        rows: B.
        rank: of this process.
        processes: W.
        device: where the numbers are wanted.
    """

    def __init__(self, seed: int, rows: int, rank: int, processes: int, device: torch.device) -> None:
        self.seed, self.rows, self.device = seed, rows, device
        local = rows // processes
        self.mine = slice(rank * local, (rank + 1) * local)

    def normal(self, stream: str, step: int, columns: int) -> Tensor:
        """Return this process's rows of `(B, columns)` standard normal numbers."""
        return self._own(torch.randn(self.rows, columns, generator=self._generator(stream, step)))

    def uniform(self, stream: str, step: int, columns: int) -> Tensor:
        """Return this process's rows of `(B, columns)` uniform numbers in [0, 1)."""
        return self._own(torch.rand(self.rows, columns, generator=self._generator(stream, step)))

    def _own(self, drawn: Tensor) -> Tensor:
        own = drawn[self.mine]
        if self.device.type == "cuda":
            return own.pin_memory().to(self.device, non_blocking=True)
        return own.to(self.device)

    def _generator(self, stream: str, step: int) -> torch.Generator:
        words = np.random.SeedSequence([self.seed, STREAMS.index(stream), step]).generate_state(2)
        return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
