"""Everything an auxiliary needs to go on, gathered from its parts and put back into them."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf

if TYPE_CHECKING:
    from .callback import ContrastiveAuxiliary

SETTINGS = (
    "weight", "mode", "schedule", "gate", "encoder", "every", "batch_size", "buffer_size", "learning_rate",
    "max_grad_norm", "k", "seed",
)  # fmt: skip

State = tuple[dict[str, torch.Tensor], dict[str, Any]]
"""Tensors by name, and plain values beside them."""


def gather(auxiliary: "ContrastiveAuxiliary", *, include_buffer: bool) -> State:
    """Heads, momentum copies, queue, ring buffer, optimizer and random state; the settings alone before any `learn`."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {
        "name": auxiliary.name,
        "objective": None if auxiliary.config is None else OmegaConf.to_container(auxiliary.config, resolve=True),
        "settings": {name: getattr(auxiliary, name) for name in SETTINGS},
    }
    if not auxiliary.steps:
        return tensors, values
    tensors["generator"], values["encoders"] = auxiliary.generator.get_state(), {}
    for name, step in auxiliary.steps.items():
        step_tensors, values["encoders"][name] = step.state()
        tensors |= {f"{name}/{key}": value for key, value in step_tensors.items()}
    if include_buffer:
        ring_tensors, values["store"] = auxiliary.store.state()
        tensors |= {f"store/{key}": value for key, value in ring_tensors.items()}
    return tensors, values


def restore(auxiliary: "ContrastiveAuxiliary", state: State) -> None:
    """Put what :func:`gather` returned back into the parts of an auxiliary that was built for the same model.

    A ring buffer of other sizes (another number of environments, say) begins empty, with a warning.

    Raises:
        ValueError: the state belongs to other encoders.
    """
    tensors, values = state
    if set(values["encoders"]) != set(auxiliary.steps):
        raise ValueError(
            f"the saved auxiliary must belong to the encoders {sorted(auxiliary.steps)} of this model, "
            f"got one for {sorted(values['encoders'])}"
        )
    auxiliary.generator.set_state(tensors["generator"].cpu())
    for name, step in auxiliary.steps.items():
        step.load_state(_below(tensors, f"{name}/"), values["encoders"][name])
    if "store" not in values:
        return
    try:
        if values["store"]["kind"] != auxiliary.store.kind:
            raise ValueError(f"this model has a {auxiliary.store.kind}, and a {values['store']['kind']} was saved")
        auxiliary.store.load_state(_below(tensors, "store/"), values["store"])
    except ValueError as error:
        warnings.warn(f"the auxiliary's buffer begins empty: {error}", UserWarning, stacklevel=2)


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
