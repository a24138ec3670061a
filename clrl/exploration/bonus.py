"""What the callback asks of a novelty bonus, and what it hands to one.

Shape legend: T steps, E environments, D embedding dimension.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Rows = Tensor | dict[str, Tensor]
"""One row per observation: embeddings `(N, D)`, or preprocessed observations, a dict of them for a Dict space."""


class Host(NamedTuple):
    """What a bonus is built for.

    Attributes:
        dim: D of the embeddings.
        n_envs: number of parallel environments E.
        device: where its tensors live.
        make_encoder: makes a new encoder like the policy's own, with `features_dim`, not trained by anyone.
    """

    dim: int
    n_envs: int
    device: torch.device = torch.device("cpu")
    make_encoder: Callable[[], nn.Module] | None = None


class Steps(NamedTuple):
    """T consecutive steps of E environments, as a bonus sees them.

    Attributes:
        following: `(T * E, ...)` rows of o_{t+1}, step by step; the terminal observation where an episode ended.
        ended: `(T, E)` bool, whether the step ended an episode (terminated or truncated).
        first: a row for each True in `ended`, in its order: the first observation of the next episode.
    """

    following: Rows
    ended: np.ndarray
    first: Rows | None


class Bonus(Protocol):
    """How new an observation is. An `nn.Module` in practice."""

    embedded: bool
    """True: rows are embeddings by the agent's encoder. False: rows are preprocessed observations."""

    def begin(self, envs: np.ndarray, first: Rows) -> None:
        """Begin new episodes in the environments of the mask `(E,)`, at one row for each of them."""
        ...

    def novelty(self, steps: Steps) -> Tensor:
        """`(T, E)`, >= 0: how new each following observation is, given what came before it."""
        ...

    def update(self) -> None:
        """Learn from what was seen since the last call."""
        ...

    def metrics(self) -> dict[str, float]:
        """Numbers for the log, under `exploration/`."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What is kept beyond the episodes, by name."""
        ...

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put :meth:`state` back in place."""
        ...


class EpisodeMemory(nn.Module):
    """The part that bonuses with a memory of the running episode share: time order, and nothing to learn."""

    embedded = True

    def begin(self, envs: np.ndarray, first: Any) -> None:
        """Forget the episodes of the environments in the mask `(E,)`, and remember the first embeddings `(n, D)`."""
        raise NotImplementedError

    def score(self, z_ED: Tensor) -> Tensor:
        """`(E,)`: how new each embedding is in its environment's episode; then remember them."""
        raise NotImplementedError

    def novelty(self, steps: Steps) -> Tensor:
        """Score step after step, and begin anew where an episode ended; see :class:`Bonus`."""
        n_steps, n_envs = steps.ended.shape
        following_TED = steps.following.view(n_steps, n_envs, -1)  # type: ignore[union-attr]
        scores, begun = [], 0
        for z_ED, ended in zip(following_TED, steps.ended, strict=True):
            scores.append(self.score(z_ED))
            if n := int(ended.sum()):
                self.begin(ended, steps.first[begun : begun + n])  # type: ignore[index]
                begun += n
        return torch.stack(scores)

    def update(self) -> None:
        """Nothing is learnt."""

    def metrics(self) -> dict[str, float]:
        """Nothing beside the novelty itself."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """The persistent buffers; memories of episodes are not, since a loaded agent begins new ones."""
        return dict(self.state_dict())

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put :meth:`state` back in place."""
        self.load_state_dict(tensors)
