"""Inverse dynamics: which action led from one observation to the other; the baseline without negatives or copies.

Shape legend: N windows, D features, A numbers in the code of an action, B choices in one action.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..check import shape, whole
from ..pairs import Outcome, Pairs


def choice_loss(logits: Tensor, action: Tensor, choices: Sequence[int]) -> Tensor:
    """Return the negative log-likelihood of actions made of B choices, in nats, its mean over windows.

        -1/N sum_n sum_b log softmax(logits of block b)[the choice taken]

    Args:
        logits: `(N, A)`.
        action: `(N, A)`, one-hot within each block.
        choices: sizes of the B blocks, A in all.
    """
    blocks = zip(logits.split(list(choices), 1), action.split(list(choices), 1), strict=True)
    return torch.stack([F.cross_entropy(block, taken) for block, taken in blocks]).sum()


class InverseDynamics(nn.Module):
    """Predict the action a_t from the features of o_t and o_{t+1}: the inverse model of Pathak et al. 2017.

        a^ = g([z_t, z_{t+1}])    loss = L(a^, a_t), equations 2 and 3 of https://arxiv.org/abs/1705.05363

    L is the cross-entropy of the action taken where it is a choice, summed over the choices where there are several
    (MultiDiscrete), in nats; and the mean squared error where it is made of values (Box, which replay and ring hold in
    [-1, 1]; MultiBinary). Gradient flows through both features; nothing in them but what the agent can change is asked
    for.

    The features are `Pairs.query` and `Pairs.key`, both `(N, D)`, row against row; the action is the first in the
    context `action` `(N, k, A)`, as `contraux.clrl.sources.Sequences` with `keys="last"` makes them. With k > 1 this is
    the multi-step inverse model: the first of the actions that led from o_t to o_{t+k}. `positive` and `exclude` are
    not read.

    Args:
        dim: dimension D of the features.
        action_dim: A, numbers in the code of an action; the source says so.
        action_choices: sizes of the one-hot blocks in this code, none where it holds values; likewise.
        hidden: width of the hidden layer of g; the paper's 256.

    Raises:
        ValueError: a width is not a whole number >= 1, or the blocks do not make up the code.
    """

    def __init__(self, dim: int, *, action_dim: int, action_choices: Sequence[int], hidden: int = 256) -> None:
        super().__init__()
        self.dim, self.action_dim = whole("dim", dim, 1), whole("action_dim", action_dim, 1)
        self.choices = tuple(whole("action_choices", size, 1) for size in action_choices)
        if self.choices and sum(self.choices) != self.action_dim:
            raise ValueError(
                f"action_choices must add up to action_dim {self.action_dim} or be empty, got {self.choices}"
            )
        width = whole("hidden", hidden, 1)
        self.head = nn.Sequential(nn.Linear(2 * self.dim, width), nn.ReLU(), nn.Linear(width, self.action_dim))

    def forward(self, pairs: Pairs) -> Outcome:
        """Return the loss; `accuracy`, the share of choices predicted, or `explained_variance` of values.

        The latter is 1 - (squared error) / (variance of the batch): 0 for who always says the mean, 1 at best.

        Raises:
            ValueError: the context has no `action`, or the shapes are not those that this was built for.
        """
        query, key, action = pairs.query, pairs.key, pairs.context.get("action")
        self._check(query, key, action)
        assert action is not None
        predicted, taken = self.head(torch.cat((query, key), dim=1)), action[:, 0].to(query)
        if self.choices:
            return Outcome(choice_loss(predicted, taken, self.choices), {"accuracy": self._accuracy(predicted, taken)})
        loss = F.mse_loss(predicted, taken)
        variance = taken.var(0, correction=0).mean()
        return Outcome(loss, {"explained_variance": 1 - loss.detach() / variance.clamp(min=1e-12)})

    @torch.no_grad()
    def _accuracy(self, predicted: Tensor, taken: Tensor) -> Tensor:
        sizes = list(self.choices)
        blocks = zip(predicted.split(sizes, 1), taken.split(sizes, 1), strict=True)
        return torch.stack([(block.argmax(1) == own.argmax(1)).float().mean() for block, own in blocks]).mean()

    def _check(self, query: Tensor, key: Tensor, action: Tensor | None) -> None:
        if action is None:
            raise ValueError(
                "InverseDynamics needs the actions in the context as 'action' (source.actions=true), got none"
            )
        fits = action.ndim == 3 and action.shape[2] == self.action_dim and action.shape[1] >= 1
        if not fits or not query.shape == key.shape == (len(action), self.dim):
            raise ValueError(
                f"InverseDynamics needs queries and keys (N, {self.dim}) and actions (N, k, {self.action_dim}), got "
                f"{shape(query)}, {shape(key)} and {shape(action)}"
            )

    def update(self) -> None:
        """Nothing here follows the weights."""
