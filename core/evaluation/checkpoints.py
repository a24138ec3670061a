"""What `contraux pretrain` left behind, as evaluation needs it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from omegaconf import OmegaConf
from torch import nn

from ..data.protocol import DataFactory, DataSet
from ..encoders import PretrainedEncoder, load_encoder
from ..files import existing
from ..preset import build
from .subject import TwoViewsOf


class Checkpoint(NamedTuple):
    """A pretrained encoder and the config of the run that made it, where there is one.

    Attributes:
        where: run folder, encoder folder, or name on the Hub.
        encoder: the final one.
        config: of the run; empty without a run folder.
    """

    where: str
    encoder: PretrainedEncoder
    config: Mapping[str, Any]

    @property
    def seed(self) -> int | None:
        """The seed it was pretrained with, where the run says it."""
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 else None


def load(where: str | Path) -> Checkpoint:
    """Load a run folder, an encoder's folder, or a model of the Hub.

    Raises:
        ValueError: there is none, or it is broken; an unfinished run has no encoder yet.
    """
    folder = Path(where)
    config = folder / "config.yaml"
    if config.is_file() and existing(folder / "encoder") is None:
        raise ValueError(f"{folder} is a run without an encoder: it has not ended, resume={folder} goes on with it")
    read = OmegaConf.to_container(OmegaConf.load(config), resolve=True) if config.is_file() else {}
    return Checkpoint(
        str(where), load_encoder(where), cast("Mapping[str, Any]", read if isinstance(read, dict) else {})
    )


def data_of(checkpoints: Sequence[Checkpoint], *, trusted: bool = False) -> DataFactory:
    """Return the data that the runs' own configs name.

    Raises:
        ValueError: a checkpoint is no run folder, so that nothing names its data; two runs had different data; or a
            config names what is not contraux's, and is not `trusted`.
    """
    for checkpoint in checkpoints:
        if not checkpoint.config.get("data"):
            raise ValueError(
                f"{checkpoint.where} does not say which data it was trained on, as a run folder would: give data=NAME"
            )
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if other.config["data"] != first.config["data"]:
            raise ValueError(
                f"checkpoints that are compared must have the same data, got {first.config['data']} in {first.where} "
                f"and {other.config['data']} in {other.where}: give data=NAME"
            )
    return cast(DataFactory, build(first.config["data"], trusted=trusted))


def views_of(checkpoint: Checkpoint, *, trusted: bool = False) -> TwoViewsOf | None:
    """Return the views of the checkpoint's run, normalised as its encoder was; None where no config names them."""
    node = checkpoint.config.get("views")
    if not node:
        return None
    encoder = checkpoint.encoder
    statistics = {"mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()}
    return cast(TwoViewsOf, build(node, trusted=trusted)(shape=encoder.input_shape, **statistics))


def untrained(checkpoint: Checkpoint) -> Callable[[int], nn.Module]:
    """Return what makes the same architecture with the random weights of a seed.

    The global random state is afterwards what it was.

    Raises:
        ValueError: the encoder does not say how it can be built.
    """

    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return PretrainedEncoder.from_config(checkpoint.encoder.config(), source=checkpoint.where).eval()

    return make


def check_shapes(checkpoints: Sequence[Checkpoint], data: DataSet) -> None:
    """Raise ValueError where an encoder reads other inputs than the data have; the sentence names both shapes."""
    for checkpoint in checkpoints:
        if tuple(checkpoint.encoder.input_shape) != tuple(data.shape):
            raise ValueError(
                f"the encoder of {checkpoint.where} reads inputs of shape {tuple(checkpoint.encoder.input_shape)}, but "
                f"the data have {tuple(data.shape)}"
            )
