"""Agents and encoders from files: runs of `contraux rl` and `contraux pretrain`, and Stable-Baselines3's own zips."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_zip_file
from torch import nn

from ...clrl.discovery import ENCODER_SUFFIX
from ...clrl.pretrained import Checkpoint, PretrainedExtractor
from ...core.encoders import load_encoder
from ...core.files import existing
from ..checkpoint import FOLDER


class SavedPolicy(NamedTuple):
    """A policy with the weights it was saved with.

    Attributes:
        policy: in evaluation mode.
        where: the file.
    """

    policy: BasePolicy
    where: Path


def agent_file(where: str) -> Path | None:
    """Return the zip of an agent: the file itself, or that of a run of `contraux rl`; None for anything else."""
    path = Path(where)
    folder = existing(path / FOLDER)
    if folder is not None and (folder / "model.zip").is_file():
        return folder / "model.zip"
    return path if path.suffix == ".zip" and path.is_file() else None


def load_policy(where: str, device: torch.device | str) -> SavedPolicy:
    """Load the policy of an agent of any algorithm, which need not be known.

    Like Stable-Baselines3's own `load`, this runs what the zip's pickles say: load only what you trust.

    Raises:
        ValueError: there is no agent, or the zip holds none.
    """
    file = agent_file(where)
    if file is None:
        raise ValueError(f"an agent must be a run of contraux rl or a Stable-Baselines3 .zip, got {where!r}")
    try:
        data, parameters, _ = load_from_zip_file(file, device=device)
        assert data is not None
        kwargs = dict(data["policy_kwargs"])
        if kwargs.get("device"):
            del kwargs["device"]
        make = cast(Any, data["policy_class"])
        policy = make(data["observation_space"], data["action_space"], lambda _: 0.0, **kwargs)
        policy.load_state_dict(parameters["policy"])
    except (KeyError, AssertionError, RuntimeError) as error:
        raise ValueError(f"{file} holds no agent that can be loaded: {error}") from error
    policy.to(device)
    policy.set_training_mode(False)
    return SavedPolicy(policy, file)


def load(where: str, space: spaces.Space[Any], device: torch.device | str, role: str = "critic") -> nn.Module:
    """Return the encoder of an agent, or a pretrained one.

    Args:
        where: a run of `contraux rl` or its agent's zip; a run of `contraux pretrain`, an encoder's folder, or a name
            on the Hugging Face Hub.
        space: the observations it is to see, images channels first.
        device: where it is to be.
        role: `critic` or `actor`: whose encoder, where an agent has one for each.

    Raises:
        ValueError: there is none, or it was made for other observations.
    """
    if agent_file(where) is None:
        encoder: nn.Module = PretrainedExtractor(space, Checkpoint(load_encoder(where)), frozen=True)
        return encoder.to(device).eval()
    policy, file = load_policy(where, device)
    if policy.observation_space != space:
        raise ValueError(
            f"the agent in {file} was trained on observations {policy.observation_space}, but these are {space}"
        )
    found = {
        name: module
        for name, module in policy.named_modules()
        if name.endswith(ENCODER_SUFFIX) and "target" not in name and len(module.state_dict())
    }
    if not found:
        raise ValueError(f"the agent in {file} has no encoder with weights, only a FlattenExtractor")
    marks = ("actor", "pi_") if role == "actor" else ("critic", "vf_")
    of_role = [module for name, module in found.items() if any(mark in name for mark in marks)]
    return (of_role or list(found.values()))[0]
