"""TACO: an observation and the actions after it pick out the observation they lead to; rewards are predicted too.

Shape legend: N windows, K actions, D features of the encoder, A numbers in the code of an action, L of an embedded
action, S features compared.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..check import shape, whole
from ..losses import info_nce
from ..objectives import Contrastive
from ..pairs import Outcome, Pairs
from ..samplers import Sampler
from ..similarity import Bilinear


class TACO(nn.Module):
    """Temporal action-driven contrastive learning: Zheng et al. 2023, https://arxiv.org/abs/2306.13229, section 3.

        s = Tanh(LayerNorm(linear(z)))    u = embedding of the actions a_t ... a_{t+K-1}
        TACO = InfoNCE of g([s_t, u]) among the s_{t+K} of all windows
        CURL = InfoNCE of s_t among the s_t' of all windows, s_t' from another view of o_t
        reward = mean squared error of r([s_t, u]) to the sum of the K rewards
        loss = TACO + CURL + reward

    Both InfoNCE share the similarity and the sampler; no gradient reaches what is picked out. The features are
    `Pairs.query` (z_t) and `Pairs.key` (z_{t+K}), both `(N, D)`, row against row; the context holds `action`
    `(N, K, A)`, `reward` `(N, K)` where rewards are predicted, and `view` `(N, D)`, the features of another view of
    o_t, where CURL's term is wanted, as `contraux.clrl.sources.Sequences` with `keys="last"` makes them. `positive` and
    `exclude` are not read.

    Deviations: the critic does not see the embedded actions, as it does in the paper's agent: the host's critic stays
    its own. Torch's own initial weights in place of orthogonal ones; W begins as the identity over sqrt(S), see
    `contraux.core.similarity.Bilinear`. The authors' code takes the n-step return of its critic for the reward.

    Args:
        dim: dimension D of the features.
        action_dim: A, numbers in the code of an action; the source says so.
        steps: K, as many as the source looks ahead; it says so. 1 or 3 in the paper.
        features: S; the authors' code: 50.
        latent: L; None: the whole part of 1.25 A, plus 1, as in the authors' code.
        hidden: width of g and r; there 1024.
        reward: predict the rewards.
        curl: add CURL's term.
        similarity: of g([s_t, u]) and s_{t+K}; None: `Bilinear(features)`, the paper's.
        sampler: who counts as a negative, as for `Contrastive`.
        loss: as for `Contrastive`, in the place of InfoNCE.
        temperature: likewise; W carries the scale.

    Raises:
        ValueError: a number out of range, or as for `Contrastive`.
    """

    def __init__(
        self,
        dim: int,
        *,
        action_dim: int,
        steps: int,
        features: int = 50,
        latent: int | None = None,
        hidden: int = 1024,
        reward: bool = True,
        curl: bool = True,
        similarity: Callable[[Tensor, Tensor], Tensor] | None = None,
        sampler: Sampler | None = None,
        loss: Callable[..., Tensor] = info_nce,
        temperature: float | nn.Module | None = 1.0,
    ) -> None:
        super().__init__()
        self.dim, self.action_dim, self.steps = (
            whole(name, value, 1) for name, value in (("dim", dim), ("action_dim", action_dim), ("steps", steps))
        )
        latent = int(1.25 * action_dim) + 1 if latent is None else whole("latent", latent, 1)
        sequence, joint = self.steps * latent, whole("features", features, 1) + self.steps * latent
        self.state = nn.Sequential(nn.Linear(self.dim, features), nn.LayerNorm(features), nn.Tanh())
        self.action = nn.Sequential(nn.Linear(self.action_dim, 64), nn.Tanh(), nn.Linear(64, latent))
        self.sequence = nn.Sequential(nn.Linear(sequence, sequence), nn.LayerNorm(sequence), nn.Tanh())
        self.prediction = _two_layers(joint, whole("hidden", hidden, 1), features)
        self.reward = _two_layers(joint, hidden, 1) if reward else None
        self.curl = curl
        similarity = Bilinear(features) if similarity is None else similarity
        self.contrast = Contrastive(
            features, similarity=similarity, sampler=sampler, loss=loss, temperature=temperature
        )

    def forward(self, pairs: Pairs) -> Outcome:
        """Return the sum of the losses, what `Contrastive` reports of TACO's term, and the terms themselves.

        `loss_taco`, and where there are such terms `loss_curl`, `accuracy_curl` and `loss_reward`.

        Raises:
            ValueError: the context lacks something, or the shapes are not those that this was built for.
        """
        query, key = pairs.query, pairs.key
        action = self._of("action", pairs, (len(query), self.steps, self.action_dim), "source.actions")
        if not query.shape == key.shape == (len(query), self.dim):
            raise ValueError(f"TACO needs queries and keys (N, {self.dim}), got {shape(query)} and {shape(key)}")
        diagonal = torch.arange(len(query), device=query.device)
        state = self.state(query)
        joint = torch.cat((state, self.embed(action)), dim=1)
        with torch.no_grad():
            ahead = self.state(key)
        loss, metrics = self.contrast(Pairs(self.prediction(joint), ahead, diagonal))
        metrics = {**metrics, "loss_taco": loss.detach()}
        if self.curl:
            view = self._of("view", pairs, (len(query), self.dim), "source.second_view")
            with torch.no_grad():
                again = self.state(view)
            outcome = self.contrast(Pairs(state, again, diagonal))
            loss = loss + outcome.loss
            metrics |= {"loss_curl": outcome.loss.detach(), "accuracy_curl": outcome.metrics["accuracy"]}
        if self.reward is not None:
            earned = self._of("reward", pairs, (len(query), self.steps), "source.rewards").sum(1)
            error = F.mse_loss(self.reward(joint)[:, 0], earned)
            loss, metrics["loss_reward"] = loss + error, error.detach()
        return Outcome(loss, metrics)

    def embed(self, action: Tensor) -> Tensor:
        """Return u, `(N, K L)`, of the codes of actions `(N, K, A)`: each embedded, then all of them together."""
        return self.sequence(self.action(action).flatten(1))

    def _of(self, name: str, pairs: Pairs, expected: tuple[int, ...], setting: str) -> Tensor:
        found = pairs.context.get(name)
        if found is None:
            raise ValueError(f"TACO needs {name!r} in the context ({setting}=true), got none")
        if found.shape != expected:
            raise ValueError(f"TACO of {self.steps} steps needs {name!r} as {expected}, got {shape(found)}")
        return found.to(pairs.query)

    def update(self) -> None:
        """Let a loss that anneals move on; call it after each step."""
        self.contrast.update()


def _two_layers(width: int, hidden: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))
