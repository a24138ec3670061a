"""What the tap asks of a contrastive method for a discriminator or denoiser. Shape legend: B rows of a call."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from ..core.pairs import Outcome

Features = Mapping[str, Mapping[str, Tensor]]
"""What was recorded: `features[role][tap]`, each `(B, D)` or, of a tap that keeps its map, as the module put it out."""

Context = Mapping[str, Tensor]
"""What `aux.loss(...)` was given by name: labels, timesteps, identity."""

Sizes = Mapping[str, tuple[int, ...]]
"""Of each tap the shape of one example: `(D,)`, or that of the map."""

ObjectiveFactory = Callable[[int], Any]
"""What a node of a preset describes: `objective(dim) -> Contrastive` or another objective of the core."""


class GenerativeMethod(nn.Module):
    """One algorithm on the features of a discriminator or denoiser: who is compared with whom, and by which objective.

    A subclass sets the attributes below and writes `forward`, which together are the paper's algorithm; it is built as
    `Method(sizes, ...)`. It never sees the host: features arrive as float32, with autocast off, and with the rows of
    all processes when there are several, so that every process computes the loss of the full batch.

    Attributes:
        taps: what it looks at, by its own names: `pooled` features are `(B, D)`, a `map` comes as the module put it
            out.
        roles: the calls of the discriminator's (or denoiser's) phase, in order. One call that holds all of them, one
            after the other in equal parts, does as well.
        generator_roles: likewise of the generator's phase; empty where the method has no term for the generator.
        key_roles: inputs that `aux.loss(...)` is given by these names, and that pass the momentum copy of the model.
        generator_key_roles: likewise in the generator's phase.
        momentum: m of that copy, in [0, 1); None: there is none.
        stop_gradient: whether the layers behind the tap receive its output detached while `with aux:` records, so that
            what they are trained for does not reach the layers before it (ContraD's adversarial head).
        context: tensors that `aux.loss(...)` must be given by name.
        optional: tensors that it may be given.
        generator_context: what must be given in the generator's phase.
    """

    taps: ClassVar[Mapping[str, str]] = {"features": "pooled"}
    roles: ClassVar[tuple[str, ...]] = ("real", "fake")
    generator_roles: ClassVar[tuple[str, ...]] = ()
    key_roles: ClassVar[tuple[str, ...]] = ()
    generator_key_roles: ClassVar[tuple[str, ...]] = ()
    momentum: float | None = None
    stop_gradient: bool = False
    context: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    generator_context: tuple[str, ...] = ()

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return loss and metrics of one step of the discriminator or denoiser."""
        raise NotImplementedError

    def generator(self, features: Features, context: Context) -> Outcome:
        """Return loss and metrics of one step of the generator; the method's own weights get no gradient from it."""
        raise NotImplementedError

    def update(self) -> None:
        """Move what follows the weights without a gradient; called once for each step of the discriminator."""
