"""One encoder's auxiliary: draw windows, take the loss, and let its gradient into the encoder at the host's own step.

Shape legend: N windows, D features.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ..core.gradient import auxiliary_gradients
from ..core.pairs import Objective, Outcome
from .gate import gate_factor, gradient_cosine
from .shared_pass import shared_pass
from .sidecar import flatten_optimizer, unflatten_optimizer
from .sources import Source
from .stores import Store


class StepSettings(NamedTuple):
    """What the seam decides, for every encoder alike; see :class:`~contraux.clrl.ContrastiveAuxiliary`."""

    weight: float
    mode: str
    every: int
    batch_size: int
    learning_rate: float | None
    max_grad_norm: float | None
    gate: str = "none"


class AuxiliaryStep:
    """The auxiliary of one encoder.

    Args:
        encoder: the host's features extractor.
        host: the host's optimizer that owns it; its step is what we join.
        source: makes pairs from the encoder's features.
        objective: makes a loss from pairs; an `nn.Module`.
        settings: see :class:`StepSettings`.
    """

    def __init__(
        self, encoder: nn.Module, host: Optimizer, source: Source, objective: Objective, settings: StepSettings
    ):
        self.encoder, self.host, self.source, self.objective, self.settings = encoder, host, source, objective, settings
        owned = {id(parameter) for group in host.param_groups for parameter in group["params"]}
        self.encoder_parameters = [p for p in encoder.parameters() if p.requires_grad and id(p) in owned]
        self.heads = cast(nn.Module, objective)
        self.head_parameters = [parameter for parameter in self.heads.parameters() if parameter.requires_grad]
        self.optimizer = self._make_optimizer()
        self.host_steps = self.updates = self.skipped = 0
        self._encoder_buffers = list(encoder.buffers())
        self._warned = False  # that the gate has nothing to compare with
        self._metrics: tuple[str, ...] = ()
        self._seen: list[Tensor] = []  # one vector of metrics per update since they were last taken

    def _make_optimizer(self) -> Optimizer | None:
        """Adam for the heads, and in separate mode for the encoder too.

        Adam does not see a constant factor on the loss, so that in separate mode the weight scales the encoder's
        learning rate instead: half the weight moves the encoder half as far in either mode.
        """
        groups: list[dict[str, Any]] = []
        if self.head_parameters:
            groups.append({"params": self.head_parameters, "encoder": False})
        if self.settings.mode == "separate" and self.settings.weight:
            groups.append({"params": self.encoder_parameters, "encoder": True})
        if not groups:
            return None
        device = self.encoder_parameters[0].device.type
        return torch.optim.Adam(groups, lr=1e-3, fused=device in ("cpu", "cuda"))

    @contextmanager
    def attached(self, store: Store, generator: torch.Generator, weight: Callable[[], float]) -> Iterator[None]:
        """Join the host's optimizer for as long as the context lasts; `weight` is asked at each update."""
        if self.settings.mode == "shared":
            with shared_pass(self, generator, weight):
                yield
            return

        def hook(*_: Any) -> None:
            self.host_steps += 1
            if self.host_steps % self.settings.every == 0:
                self.update(store, generator, weight())

        register: Callable[[Any], RemovableHandle] = (
            self.host.register_step_pre_hook if self.settings.mode == "joint" else self.host.register_step_post_hook
        )
        handle = register(hook)
        try:
            yield
        finally:
            handle.remove()

    def update(self, store: Store, generator: torch.Generator, weight: float) -> None:
        """Draw a batch, take the gradient, and route it; skipped while the store is too empty to fill a batch."""
        window = store.sample(self.settings.batch_size, self.source.horizon, generator)
        if window is None:
            self.skipped += 1
            return
        with self.leaving_no_trace(), torch.enable_grad():
            outcome = self.objective(self.source(window, generator))
            gradients, outcome = auxiliary_gradients(
                outcome, [*self.encoder_parameters, *self.head_parameters], self.settings.max_grad_norm
            )
        split = len(self.encoder_parameters)
        encoder_gradients = gradients[:split]
        if self.settings.gate != "none":
            encoder_gradients, outcome = self._gated(encoder_gradients, outcome)
        if weight and self.settings.mode == "joint":
            _add_to_gradients(self.encoder_parameters, encoder_gradients, weight)
        self.conclude(encoder_gradients, gradients[split:], outcome, weight)

    def conclude(
        self,
        encoder_gradients: list[Tensor | None],
        head_gradients: list[Tensor | None],
        outcome: Outcome,
        weight: float = 0.0,
    ) -> None:
        """Step heads, move what follows without a gradient, and remember the metrics."""
        self._step(encoder_gradients, head_gradients, weight)
        self.source.update()
        self.objective.update()
        self.updates += 1
        self._remember({"loss": outcome.loss.detach(), **outcome.metrics})

    def _gated(self, gradients: list[Tensor | None], outcome: Outcome) -> tuple[list[Tensor | None], Outcome]:
        """The encoder's gradients times the gate's factor; a parameter that either side does not reach counts as 0."""
        pairs = [(p.grad, g) for p, g in zip(self.encoder_parameters, gradients, strict=True) if g is not None]
        if not self._warned and all(found is None for found, _ in pairs):
            self._warned = True
            warnings.warn(
                f"gate={self.settings.gate!r} must have a gradient of the host to compare with, and this host steps "
                "its optimizer without one on the encoder: 'sign' then lets the auxiliary in, 'cosine' keeps it out",
                UserWarning,
                stacklevel=2,
            )
        host = [torch.zeros_like(own) if found is None else found for found, own in pairs]
        cosine = gradient_cosine(host, [own for _, own in pairs])
        factor = gate_factor(self.settings.gate, cosine)
        scaled = [None if gradient is None else gradient * factor for gradient in gradients]
        return scaled, Outcome(outcome.loss, {**outcome.metrics, "gate/cosine": cosine, "gate/factor": factor})

    def _step(self, encoder_gradients: list[Tensor | None], head_gradients: list[Tensor | None], weight: float) -> None:
        """Step our own optimizer, leaving the host's gradients on the encoder as they are."""
        if self.optimizer is None:
            return
        for group in self.optimizer.param_groups:
            scale = weight if group["encoder"] else 1.0
            group["lr"] = (self.settings.learning_rate or self.host.param_groups[0]["lr"]) * scale
        for parameter, gradient in zip(self.head_parameters, head_gradients, strict=True):
            parameter.grad = gradient
        if self.settings.mode != "separate":
            self.optimizer.step()
            return
        host_gradients = [parameter.grad for parameter in self.encoder_parameters]
        for parameter, gradient in zip(self.encoder_parameters, encoder_gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        for parameter, gradient in zip(self.encoder_parameters, host_gradients, strict=True):
            parameter.grad = gradient

    def leaving_no_trace(self) -> AbstractContextManager[None]:
        """Keep the global random state and the encoder's buffers as they are, whatever a forward pass does to them."""
        return _leaving_no_trace(self._encoder_buffers, self.encoder_parameters[0].device)

    def _remember(self, metrics: dict[str, Tensor]) -> None:
        self._metrics = tuple(metrics)
        self._seen.append(torch.stack(list(metrics.values())))

    def take_metrics(self) -> dict[str, float]:
        """Means over the updates since the last call, in one transfer from the device; empty if there were none.

        Raises:
            FloatingPointError: the auxiliary loss was not finite (a warning where the weight is 0).
        """
        if not self._seen:
            return {}
        metrics = dict(zip(self._metrics, torch.stack(self._seen).mean(dim=0).tolist(), strict=True))
        self._seen = []
        if not abs(metrics["loss"]) < float("inf"):
            sentence = (
                f"the auxiliary loss must be finite, got {metrics['loss']} after {self.updates} updates; "
                "lower weight or learning_rate, or raise the objective's temperature"
            )
            if self.settings.weight:
                raise FloatingPointError(sentence)
            warnings.warn(sentence, RuntimeWarning, stacklevel=2)  # the host is not touched and goes on
        return metrics

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Heads, momentum copies, queue and optimizer as tensors; counters and other plain values beside them."""
        tensors: dict[str, Tensor] = {}
        values: dict[str, Any] = {"host_steps": self.host_steps, "updates": self.updates, "plain": {}}
        for prefix, module in (("module", self.heads), ("source", self.source)):
            for name, value in module.state_dict().items():
                if isinstance(value, Tensor):
                    tensors[f"{prefix}.{name}"] = value
                else:
                    values["plain"][f"{prefix}.{name}"] = value
        if self.optimizer is not None:
            slots = flatten_optimizer(self.optimizer.state_dict())
            tensors |= {f"optimizer.{name}": value for name, value in slots.items()}
        return tensors, values

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Put :meth:`state` back in place.

        Raises:
            RuntimeError: torch's own, naming the entries whose shapes disagree.
        """
        everything = {**tensors, **values["plain"]}
        for prefix, module in (("module.", self.heads), ("source.", cast(nn.Module, self.source))):
            module.load_state_dict(
                {name.removeprefix(prefix): value for name, value in everything.items() if name.startswith(prefix)}
            )
        slots = {
            name.removeprefix("optimizer."): value for name, value in tensors.items() if name.startswith("optimizer.")
        }
        if self.optimizer is not None and slots:
            self.optimizer.load_state_dict(unflatten_optimizer(slots, self.optimizer.state_dict()))
        self.host_steps, self.updates = values["host_steps"], values["updates"]


def _add_to_gradients(parameters: list[nn.Parameter], gradients: list[Tensor | None], weight: float) -> None:
    """`grad += weight * gradient`; a parameter that the host left without a gradient gets one."""
    pairs = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    joined = [(p.grad, g) for p, g in pairs if p.grad is not None]
    if joined:
        torch._foreach_add_([host for host, _ in joined], [gradient for _, gradient in joined], alpha=weight)
    for parameter, gradient in pairs:
        if parameter.grad is None:
            parameter.grad = gradient * weight


@contextmanager
def _leaving_no_trace(buffers: list[Tensor], device: torch.device) -> Iterator[None]:
    """Restore the global random state and the encoder's buffers (running statistics), which a forward pass may move."""
    state = torch.get_rng_state()
    cuda_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    saved = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state, device)
        for buffer, value in zip(buffers, saved, strict=True):
            buffer.copy_(value)
