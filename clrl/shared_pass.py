"""The host's own forward and backward pass, shared: its features are the queries, and the gradient joins them there.

Shape legend: N observations of the host's batch, D features.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from ..core.gradient import auxiliary_gradients
from ..core.pairs import Outcome, Pairs

if TYPE_CHECKING:
    from .auxiliary_step import AuxiliaryStep


class SharingSource(Protocol):
    """A source that can take its queries from the host."""

    def pairs_with(self, query: Tensor, seen: Any, generator: torch.Generator) -> Pairs:
        """Return pairs of features that the host made of `seen` with another view of it."""
        ...


def check_shared(source: Any) -> None:
    """Refuse a source whose pairs are not views of one observation, or whose keys want a gradient.

    Raises:
        ValueError: the sentence says which of the two.
    """
    if not hasattr(source, "pairs_with") or source.horizon or source.key_gradient:
        found = f"{type(source).__name__} with k={source.horizon}"
        found += ", keys with gradient (momentum null)" if getattr(source, "key_gradient", False) else ""
        raise ValueError(
            "mode='shared' needs pairs of views of one observation, k=0, and keys without a gradient (momentum a "
            f"number), as curl has them; got {found}"
        )


def check_host(model: Any) -> None:
    """Refuse a host whose passes through the encoder are not all of its own batches and its own loss.

    Raises:
        ValueError: its batches are padded sequences, or it differentiates more than a loss.
    """
    if hasattr(model, "_last_lstm_states"):
        raise ValueError(
            "mode='shared' takes the host's batches as they are, got one of padded sequences (a recurrent policy): "
            "use mode='joint', which draws sequences without padding"
        )
    if hasattr(model, "hessian_vector_product"):
        raise ValueError(
            f"mode='shared' adds to every gradient the host takes by its features, got {type(model).__name__}, which "
            "takes those of its constraint too: use mode='joint'"
        )


@contextmanager
def shared_pass(step: "AuxiliaryStep", generator: torch.Generator, weight: Callable[[], float]) -> Iterator[None]:
    """Let the auxiliary take part in the host's passes through the encoder for as long as the context lasts.

    The backward pass of the host stops at the features for long enough to add weight x d loss / d features, so that
    one pass through the encoder carries both. Where the host's batch goes backward more than once before the optimizer
    steps (SAC's actor goes through the critic), the last time counts for the heads.

    Args:
        step: its encoder, source, objective and optimizer.
        generator: of the views.
        weight: now, of the gradient.
    """
    source = cast(SharingSource, step.source)
    waiting: list[tuple[list[Tensor | None], Outcome]] = []  # of the last backward pass: gradients of heads, outcome

    def on_forward(_: Any, inputs: tuple[Any, ...], features: Tensor) -> None:
        due = (step.host_steps + 1) % step.settings.every == 0
        if due and torch.is_grad_enabled() and features.requires_grad:
            query, seen = features.detach(), inputs[0]
            features.register_hook(lambda gradient: on_backward(gradient, query, seen))

    def on_backward(gradient: Tensor, query: Tensor, seen: Any) -> Tensor | None:
        with step.leaving_no_trace(), torch.enable_grad():
            query = query.requires_grad_()
            outcome = step.objective(source.pairs_with(query, seen, generator))
            gradients, outcome = auxiliary_gradients(
                outcome, [query, *step.head_parameters], step.settings.max_grad_norm
            )
        waiting[:] = [(gradients[1:], outcome)]
        factor, own = weight(), gradients[0]
        return None if not factor or own is None else torch.add(gradient, own.to(gradient.dtype), alpha=factor)

    def on_step(*_: Any) -> None:
        step.host_steps += 1
        if step.host_steps % step.settings.every == 0:
            if waiting:
                step.conclude([], *waiting.pop())
            else:
                step.skipped += 1

    with ExitStack() as stack:
        stack.callback(step.encoder.register_forward_hook(on_forward).remove)
        stack.callback(step.host.register_step_pre_hook(on_step).remove)
        yield
