"""Random network distillation: the baseline that remembers the whole of training, not the episode.

Shape legend: N observations, O outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ...core.check import number, whole
from ..sidecar import flatten_optimizer, unflatten_optimizer
from .bonus import Host, Rows, Steps


class RandomNetworkDistillation(nn.Module):
    """Novelty is the error of predicting what a fixed random network says (Burda et al. 2018, arXiv 1810.12894, eq. 1).

        b(o) = mean_O (predictor(o) - target(o))^2

    Observations are whitened by their running mean and standard deviation, element by element, and clipped to
    [-5, 5]. Both networks begin with an encoder like the policy's own, with weights of its own; the predictor is one
    hidden layer deeper. The predictor takes one Adam step for every `batch_size` observations, each used once.

    Deviations: intrinsic and extrinsic rewards share one value function and end with the episode; the mean over outputs
    where the paper has the sum, which the normalisation of the bonus undoes; an observation is whitened by statistics
    that include it, in the place of those of a random agent.

    Args:
        host: what the bonus is built for; its `make_encoder` makes the networks' encoders.
        out: outputs O of both networks, an integer >= 1.
        hidden: width of their hidden layers, an integer >= 1.
        learning_rate: of the predictor's Adam, > 0.
        batch_size: observations a step, an integer >= 1.
    """

    embedded = False

    def __init__(
        self, host: Host, *, out: int = 128, hidden: int = 256, learning_rate: float = 1e-4, batch_size: int = 256
    ):
        super().__init__()
        whole("out", out, 1), whole("hidden", hidden, 1)
        self.batch_size = whole("batch_size", batch_size, 1)
        if host.make_encoder is None:
            raise ValueError("RandomNetworkDistillation needs a host with make_encoder, got None")
        self.target = _network(host.make_encoder(), [hidden], out).to(host.device).eval().requires_grad_(False)
        self.predictor = _network(host.make_encoder(), [hidden, hidden], out).to(host.device).eval()
        self.moments = nn.ModuleList()  # one for each leaf of the observation, made when the first is seen
        self.optimizer = torch.optim.Adam(
            [p for p in self.predictor.parameters() if p.requires_grad],
            lr=number("learning_rate", learning_rate, 0.0, above=True),
        )
        self._waiting: list[Rows] = []
        self._losses: list[Tensor] = []

    def begin(self, envs: Any, first: Rows) -> None:
        """Nothing belongs to an episode here."""

    def novelty(self, steps: Steps) -> Tensor:
        """`(T, E)` prediction errors; the observations wait for :meth:`update`."""
        rows = self._whiten(steps.following)
        self._waiting.append(rows)
        with torch.no_grad():
            return self._error(rows).view(steps.ended.shape)

    def update(self) -> None:
        """Take a step on each whole batch of the observations that wait."""
        rows = _cat(self._waiting) if self._waiting else None
        while rows is not None and _length(rows) >= self.batch_size:
            batch, rows = _part(rows, slice(self.batch_size)), _part(rows, slice(self.batch_size, None))
            loss = self._error(batch).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self._losses.append(loss.detach())
        self._waiting = [] if rows is None or not _length(rows) else [rows]

    def metrics(self) -> dict[str, float]:
        """`predictor_loss`: mean over the steps since the last call; nothing where there were none."""
        losses, self._losses = self._losses, []
        return {"predictor_loss": float(torch.stack(losses).mean())} if losses else {}

    def state(self) -> dict[str, Tensor]:
        """Both networks, the predictor's Adam and the moments of observations."""
        slots = flatten_optimizer(self.optimizer.state_dict())
        return {**self.state_dict(), **{f"optimizer.{name}": value for name, value in slots.items()}}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put :meth:`state` back in place."""
        leaves = {name.split(".")[1] for name in tensors if name.startswith("moments.")}
        self.moments = nn.ModuleList(_Moments(tensors[f"moments.{leaf}.mean"]) for leaf in sorted(leaves, key=int))
        own = {name: value for name, value in tensors.items() if not name.startswith("optimizer.")}
        self.load_state_dict(own)
        slots = {name.removeprefix("optimizer."): tensors[name] for name in tensors.keys() - own.keys()}
        if slots:
            self.optimizer.load_state_dict(unflatten_optimizer(slots, self.optimizer.state_dict()))
        self.to(next(self.target.parameters()).device)

    def _error(self, rows: Rows) -> Tensor:
        return (self.predictor(rows) - self.target(rows)).square().mean(1)

    def _whiten(self, rows: Rows) -> Rows:
        leaves = rows if isinstance(rows, dict) else {"": rows}
        if not self.moments:
            self.moments = nn.ModuleList(_Moments(leaf[0].float()) for leaf in leaves.values())
        white = {
            name: moments(leaf.float()) for (name, leaf), moments in zip(leaves.items(), self.moments, strict=True)
        }
        return white if isinstance(rows, dict) else white[""]


class _Moments(nn.Module):
    """Running mean and variance of every element, all observations weighing the same (Chan et al. 1983)."""

    mean: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, like: Tensor):
        super().__init__()
        self.register_buffer("mean", torch.zeros_like(like))
        self.register_buffer("square", torch.zeros_like(like))  # sum of squared deviations
        self.register_buffer("count", torch.zeros((), device=like.device))

    def forward(self, x: Tensor) -> Tensor:
        """Take the batch in, then return it whitened and clipped to [-5, 5]."""
        n, mean = len(x), x.mean(0)
        square = (x - mean).square().sum(0)
        total, delta = self.count + n, mean - self.mean
        self.square += square + delta.square() * self.count * n / total
        self.mean += delta * n / total
        self.count.copy_(total)
        return ((x - self.mean) / (self.square / total).sqrt().clamp_min(1e-4)).clamp(-5.0, 5.0)


def _network(encoder: nn.Module, hidden: list[int], out: int) -> nn.Sequential:
    """An encoder, hidden layers and a linear one, with orthogonal weights of gain sqrt(2) as in the paper's code."""
    width: Any = encoder.features_dim
    layers: list[nn.Module] = []
    for wide in hidden:
        layers += [nn.ReLU(), nn.Linear(width, wide)]
        width = wide
    network = nn.Sequential(encoder, *layers, nn.ReLU(), nn.Linear(width, out))
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.orthogonal_(module.weight, 2**0.5)
            nn.init.zeros_(module.bias) if module.bias is not None else None
    return network


def _length(rows: Rows) -> int:
    return len(rows) if isinstance(rows, Tensor) else len(next(iter(rows.values())))


def _part(rows: Rows, which: slice) -> Rows:
    return rows[which] if isinstance(rows, Tensor) else {name: leaf[which] for name, leaf in rows.items()}


def _cat(parts: list[Rows]) -> Rows:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)  # type: ignore[arg-type]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}  # type: ignore[index]
