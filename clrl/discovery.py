"""Find the encoders an algorithm trains, and who trains them, by looking; no algorithm is known by name."""

from typing import NamedTuple

from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn
from torch.optim import Optimizer

ENCODER_SUFFIX = "features_extractor"
"""Stable-Baselines3 calls every encoder of a policy `features_extractor`, or `…_features_extractor`."""

_ACTOR_MARKS, _CRITIC_MARKS = ("actor", "pi_"), ("critic", "vf_")


class HostEncoder(NamedTuple):
    """One encoder of the host.

    Attributes:
        names: every dotted name under which the policy holds it.
        module: the features extractor.
        roles: `actor`, `critic` or both: whose features it makes. A name that says neither serves both.
        optimizers: those that own its parameters, by dotted name.
    """

    names: tuple[str, ...]
    module: nn.Module
    roles: frozenset[str]
    optimizers: dict[str, Optimizer]

    def optimizer(self, role: str) -> Optimizer:
        """The optimizer to join: where several own the encoder, the one that belongs to `role`."""
        marks = _ACTOR_MARKS if role == "actor" else _CRITIC_MARKS
        belonging = [found for name, found in self.optimizers.items() if any(mark in name for mark in marks)]
        return (belonging or list(self.optimizers.values()))[0]


def find_optimizers(model: BaseAlgorithm) -> dict[str, Optimizer]:
    """Every optimizer that is an attribute of the algorithm, of its policy or of a module within, by dotted name."""
    holders: list[tuple[str, object]] = [("", model), *_modules(model)]
    found: dict[str, Optimizer] = {}
    for holder_name, holder in holders:
        for name, value in vars(holder).items():
            if isinstance(value, Optimizer) and not any(value is known for known in found.values()):
                found[f"{holder_name}.{name}".lstrip(".")] = value
    return found


def find_encoders(model: BaseAlgorithm) -> list[HostEncoder]:
    """The encoders with parameters that some optimizer owns, in the policy's order, each once.

    Target networks are owned by no optimizer and so drop out; an encoder shared by actor and critic is found once.

    Raises:
        ValueError: the algorithm steps no torch optimizer, or no encoder has parameters that are trained.
    """
    kind = type(model).__name__
    optimizers = find_optimizers(model)
    if not optimizers:
        raise ValueError(
            f"the auxiliary needs an algorithm that steps a torch optimizer, found none on {kind}; "
            "it cannot be joined to a gradient-free algorithm"
        )
    names: dict[int, list[str]] = {}
    modules: dict[int, nn.Module] = {}
    for name, module in _modules(model, remove_duplicate=False):
        if name.rsplit(".", 1)[-1].endswith(ENCODER_SUFFIX):
            names.setdefault(id(module), []).append(name)
            modules[id(module)] = module
    owners = {
        name: {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, optimizer in optimizers.items()
    }
    encoders = []
    for key, module in modules.items():
        trained = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
        owning = {name: optimizers[name] for name, owned in owners.items() if trained & owned}
        if owning:
            encoders.append(HostEncoder(tuple(names[key]), module, _roles(names[key]), owning))
    if not encoders:
        found = ", ".join(f"{type(module).__name__} at policy.{names[key][0]}" for key, module in modules.items())
        if any(True for module in modules.values() for _ in module.parameters()):
            raise ValueError(
                f"the auxiliary joins an optimizer that trains an encoder, found frozen ones only: {found}"
            )
        raise ValueError(
            f"the auxiliary trains an encoder with parameters, found {found or 'no features extractor'} on {kind}; "
            "make the model with policy_kwargs=contraux.clrl.vector_encoder() (or a CnnPolicy for images)"
        )
    return encoders


def choose_encoders(model: BaseAlgorithm, role: str) -> list[tuple[HostEncoder, Optimizer]]:
    """The encoders that `role` (`critic`, `actor` or `all`) names, each with the optimizer to join.

    Raises:
        ValueError: no trained encoder has that role.
    """
    encoders = find_encoders(model)
    chosen = [encoder for encoder in encoders if role == "all" or role in encoder.roles]
    if not chosen:
        found = "; ".join(f"policy.{encoder.names[0]} ({'/'.join(sorted(encoder.roles))})" for encoder in encoders)
        raise ValueError(f"encoder={role!r} names no trained encoder of {type(model).__name__}, found {found}")
    return [(encoder, encoder.optimizer("critic" if role == "all" else role)) for encoder in chosen]


def _modules(model: BaseAlgorithm, remove_duplicate: bool = True) -> list[tuple[str, nn.Module]]:
    policy = getattr(model, "policy", None)
    return list(policy.named_modules(remove_duplicate=remove_duplicate)) if isinstance(policy, nn.Module) else []


def _roles(names: list[str]) -> frozenset[str]:
    names = [name.removesuffix(ENCODER_SUFFIX) for name in names]  # "extractor" says "actor"
    actor = any(mark in name for name in names for mark in _ACTOR_MARKS)
    critic = any(mark in name for name in names for mark in _CRITIC_MARKS)
    return frozenset(role for role, marked in (("actor", actor), ("critic", critic)) if marked or not (actor or critic))
