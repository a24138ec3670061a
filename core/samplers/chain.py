"""Several samplers, one after the other. Shape legend: N queries, M keys of the batch, Q remembered keys."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..masks import positive_mask
from .protocol import Candidates, Memory
from .queue import Queue


class Chain(nn.Module):
    """Samplers in turn, for example `Chain([Queue(128, 4096), CancelByLabel(), Hardest(16)])`.

    Each takes the positives that the one before it returned, and for excluded whatever one before it gave the weight 0;
    weights multiply. So the order matters: the above cancels first and mines the hardest of what is left.

    Its temperature is that of the one member that chooses one; metrics are those of all members, of which a later one
    wins where two report the same.

    Args:
        samplers: the members, at least one; at most one of them may remember keys and at most one choose a temperature.

    Raises:
        ValueError: there is no member, or there are two that remember or choose a temperature.
    """

    samplers: Any  # a ModuleList of Sampler, for which torch has no type

    def __init__(self, samplers: Sequence[nn.Module]) -> None:
        super().__init__()
        if not len(samplers):
            raise ValueError("Chain needs at least one sampler, got none")
        self.samplers = nn.ModuleList(samplers)
        queues = sum(isinstance(part, Queue) for part in self.modules())
        if queues > 1:
            raise ValueError(f"at most one sampler of a Chain may remember keys, got {queues} queues")
        chosen = [sampler.temperature for sampler in self.samplers if sampler.temperature is not None]
        if len(chosen) > 1:
            raise ValueError(f"at most one sampler of a Chain may choose the temperature, got {len(chosen)}")

    @property
    def uniform(self) -> bool:
        """Whether all members are."""
        return all(sampler.uniform for sampler in self.samplers)

    @property
    def temperature(self) -> float | None:
        """What the member that chooses one chose."""
        return next((found for sampler in self.samplers if (found := sampler.temperature) is not None), None)

    def memory(self) -> Memory | None:
        """Return the keys that the one member with a memory remembers, or None.

        Raises:
            ValueError: two members have one.
        """
        found = [memory for sampler in self.samplers if (memory := sampler.memory()) is not None]
        if len(found) > 1:
            raise ValueError(f"at most one sampler of a Chain may remember keys, got {len(found)} that do")
        return found[0] if found else None

    def forward(
        self, similarity: Tensor, positive: Tensor, exclude: Tensor | None, context: Mapping[str, Tensor]
    ) -> Candidates:
        """Return the positives of the last member and the product of all weights."""
        weights: Tensor | None = None
        for sampler in self.samplers:
            found = sampler(similarity, positive, exclude, context)
            positive = found.positive
            if found.weights is None:
                continue
            weights = found.weights if weights is None else weights * found.weights
            absent = (found.weights == 0) & (positive_mask(positive, similarity.shape[1]) <= 0)
            exclude = absent if exclude is None else exclude | absent
        return Candidates(positive, weights)

    def remember(self, key: Tensor, context: Mapping[str, Tensor]) -> None:
        """Pass the keys to every member."""
        for sampler in self.samplers:
            sampler.remember(key, context)

    def metrics(self) -> dict[str, Tensor]:
        """Return the metrics of all members."""
        return {name: value for sampler in self.samplers for name, value in sampler.metrics().items()}
