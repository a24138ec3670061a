"""SPR: a model of the latent transitions predicts what a slow copy will say of the next steps; no negatives.

Shape legend: N windows, K steps ahead, D features, A numbers in the code of an action.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..check import shape, whole
from ..losses import negative_cosine
from ..negative_free import NegativeFree
from ..pairs import Outcome, Pairs
from ..projected import HeadFactory


class LatentTransition(nn.Module):
    """The features of the next observation, from those of this one and the action taken.

        h(z, a) = z + W_2 ReLU(W_1 [LayerNorm(z), a])

    Args:
        dim: dimension D of the features.
        action_dim: A, numbers in the code of an action.
        hidden: width of the hidden layer.

    Raises:
        ValueError: a width is not a whole number >= 1.
    """

    def __init__(self, dim: int, action_dim: int, hidden: int = 512) -> None:
        super().__init__()
        dim, width = whole("dim", dim, 1), whole("hidden", hidden, 1)
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.Sequential(
            nn.Linear(dim + whole("action_dim", action_dim, 1), width), nn.ReLU(), nn.Linear(width, dim)
        )

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Return `(N, D)` predicted features from `(N, D)` features and `(N, A)` codes of actions."""
        return features + self.layers(torch.cat((self.norm(features), action), dim=1))


def roll_out(transition: Callable[[Tensor, Tensor], Tensor], features: Tensor, action: Tensor) -> Tensor:
    """Return `(K, N, D)`: z_{j+1} = h(z_j, a_j) from `(N, D)` features z_0 and `(N, K, A)` codes of actions."""
    predicted = []
    for action_NA in action.unbind(1):
        features = transition(features, action_NA)
        predicted.append(features)
    return torch.stack(predicted)


class SPR(nn.Module):
    """Self-predictive representations: Schwarzer et al. 2021, https://arxiv.org/abs/2007.05929, section 2.2.

    A transition model is rolled out over the actions, beginning at the features of o_t; each of its predictions,
    through projection g and prediction q, is to point where the copy g_m of the projection puts what came:

        z^_{t+j} = h(z^_{t+j-1}, a_{t+j-1}), z^_t = z_t
        loss = - sum_{j=1..K} mean over windows of cos(q(g(z^_{t+j})), g_m(z_{t+j}))

    The features are `Pairs.query` (z_t) and `Pairs.key` (z_{t+1} ... z_{t+K}, `(K N, D)`, all windows of the first step
    first), the actions the context `action` (a_t ... a_{t+K-1}, `(N, K, A)`), as `contraux.clrl.sources.Sequences`
    makes them. With a momentum no gradient reaches the keys. The order of the rows says who is whose target;
    `positive` and `exclude` are not read.

    Deviations: the transition model takes the encoder's feature vector, so that it serves any encoder, where the
    paper's is convolutional and takes the feature map; it adds to the features after a LayerNorm, where the paper's
    replaces them and rescales each map to [0, 1]. The projection is a head of its own, the paper's the first layer of
    the Q-head. The paper weighs this loss with 2 (`weight=2.0`).

    Args:
        dim: dimension D of the features.
        action_dim: A, numbers in the code of an action; the source says so.
        hidden: width of the transition model.
        projection: g, as for `Contrastive`.
        prediction: q, likewise; the paper's is a linear layer.
        momentum: of g_m: 0 is g itself without gradient, the paper's choice with augmentation; 0.99 without. None lets
            the gradient through to the targets, which then can all become one.
        loss: of paired rows, `(query (N, D), key (N, D)) -> scalar`, for each step.

    Raises:
        ValueError: a width is not a whole number >= 1, or as for `NegativeFree`.
    """

    def __init__(
        self,
        dim: int,
        *,
        action_dim: int,
        hidden: int = 512,
        projection: HeadFactory | None = None,
        prediction: HeadFactory | None = None,
        momentum: float | None = 0.0,
        loss: Callable[[Tensor, Tensor], Tensor] = negative_cosine,
    ) -> None:
        super().__init__()
        self.transition = LatentTransition(dim, action_dim, hidden)
        self.compare = NegativeFree(dim, projection=projection, prediction=prediction, momentum=momentum, loss=loss)
        self.dim, self.action_dim = dim, action_dim

    def forward(self, pairs: Pairs) -> Outcome:
        """Return the sum of the steps' losses and the means of what `NegativeFree` reports of each.

        `similarity_first` and `similarity_last` are the mean cosines one step and K steps ahead.

        Raises:
            ValueError: the context has no `action`, or the shapes are not those that this was built for.
        """
        query, key, action = pairs.query, pairs.key, pairs.context.get("action")
        self._check(query, key, action)
        assert action is not None
        n, steps = action.shape[:2]
        diagonal = torch.arange(n, device=query.device)
        targets_KND = key.unflatten(0, (steps, n))
        predicted_KND = roll_out(self.transition, query, action.to(query))
        outcomes = [self.compare(Pairs(*rows, diagonal)) for rows in zip(predicted_KND, targets_KND, strict=True)]
        metrics = {name: torch.stack([seen.metrics[name] for seen in outcomes]).mean() for name in outcomes[0].metrics}
        metrics["similarity_first"] = outcomes[0].metrics["positive_similarity"]
        metrics["similarity_last"] = outcomes[-1].metrics["positive_similarity"]
        return Outcome(torch.stack([outcome.loss for outcome in outcomes]).sum(), metrics)

    def _check(self, query: Tensor, key: Tensor, action: Tensor | None) -> None:
        if action is None:
            raise ValueError("SPR needs the actions in the context as 'action' (source.actions=true), got none")
        fits = action.ndim == 3 and action.shape[2] == self.action_dim and action.shape[1] >= 1
        if not fits or query.shape != (len(action), self.dim) or key.shape != (action.shape[:2].numel(), self.dim):
            raise ValueError(
                f"SPR needs queries (N, {self.dim}), actions (N, K, {self.action_dim}) and keys (K N, {self.dim}), got "
                f"{shape(query)}, {shape(action)} and {shape(key)}"
            )

    def update(self) -> None:
        """Move the momentum projection towards the projection; call it after each step."""
        self.compare.update()
