"""A store that keeps nothing, for an auxiliary that reads the host's own batches."""

from typing import Any

import torch


class NoStore:
    """Takes the place of a store where `mode="shared"` leaves none to draw from."""

    kind = "no store"

    def interrupt(self) -> None:
        """Nothing continues."""

    def sample(self, size: int, horizon: int, generator: torch.Generator) -> None:
        """There is nothing to draw from."""

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Nothing but the kind."""
        return {}, {"kind": self.kind}

    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Put nothing back."""
