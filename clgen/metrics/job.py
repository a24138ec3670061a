"""`contraux score`: what a folder or array of generated images is worth. `configs/score.yaml` describes it."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import hydra.utils
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ...core.check import choice, whole
from ...core.data.protocol import DataFactory
from ...core.data.split import SPLITS
from ...core.evaluation.job import device_named
from ...core.provenance import versions
from ...core.training.run_folder import name_of
from ..images import images_of
from .extractor import ExtractorFactory, Reals, made
from .networks import inception, pretrained
from .report import show, write
from .samples import read_samples
from .suite import Settings, checked, evaluate_images


def main(cfg: DictConfig) -> None:
    """Compare the samples with the data, write the report, and print it.

    Raises:
        ValueError: a value breaks its rule; the sentence says which.
    """
    for missing in sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"{missing} must be given: {missing}=…")
    if cfg.threads is not None:
        torch.set_num_threads(whole("threads", cfg.threads, 1))
    choice("reference", cfg.reference, SPLITS)
    if cfg.held_out is not None and choice("held_out", cfg.held_out, SPLITS) == cfg.reference:
        raise ValueError(f"held_out must be the other split than reference, or null, got {cfg.held_out}")
    settings: Settings = hydra.utils.instantiate(cfg.metrics, _convert_="all")
    device = device_named(cfg.device)
    data: DataFactory = hydra.utils.instantiate(cfg.data, _convert_="all")
    whole_set = data(split=cfg.reference)
    samples = read_samples(
        cfg.samples, channels=whole_set.shape[0], classes=whole_set.classes, size=cfg.size, labels=cfg.labels,
        layout=cfg.layout,
    )  # fmt: skip
    size = side_of(samples.tensor)
    real = images_of(whole_set, size)
    other = None if cfg.held_out is None else images_of(data(split=cfg.held_out), size)
    checked(real, samples.tensor, samples.labels, other, settings)  # here, before a classifier is trained
    by_split = {cfg.reference: real, cfg.held_out: other}
    reals = Reals(
        by_split.get("train") or images_of(data(split="train"), size), by_split.get("test"), name_of(cfg.data)
    )
    extractors, notes = made(factories_of(cfg), reals)
    found = evaluate_images(
        real, samples.tensor, extractors, labels=samples.labels, held_out=other, settings=settings,
        batch_size=cfg.batch_size, device=device,
    )  # fmt: skip
    found["notes"] = [*samples.notes, *notes, *found["notes"]]
    found |= {
        "samples": str(cfg.samples), "data": name_of(cfg.data), "size": size,
        "settings": OmegaConf.to_container(cfg, resolve=True), "versions": versions(),
    }  # fmt: skip
    folder = Path(cfg.folder or Path("runs") / "score" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    places = write(found, folder, f"{cfg.samples} against {name_of(cfg.data)}, {size} x {size} pixels")
    console = Console(highlight=False)
    console.width = max(console.width, 120)  # a broken line is read more easily than a table cut off
    show(found, console)
    console.print(f"numbers and table: {' '.join(map(str, places))}", soft_wrap=True)


def factories_of(cfg: DictConfig) -> list[ExtractorFactory]:
    """Return what makes the extractors that a config names."""
    chosen: list[Callable[[Reals], Any]] = [
        hydra.utils.instantiate(node, _convert_="all") for node in cfg.extractors.values() if node is not None
    ]
    if cfg.pretrained is not None:
        chosen.append(partial(pretrained, checkpoint=cfg.pretrained))
    if cfg.inception is not None:
        chosen.append(partial(inception, weights=cfg.inception))
    return cast("list[ExtractorFactory]", chosen)


def side_of(images: torch.Tensor) -> int:
    """Return the side of square images, to which the data are resized.

    Raises:
        ValueError: they are oblong.
    """
    height, width = images.shape[-2:]
    if height != width:
        raise ValueError(f"samples must be square, or size=N be given, got {height} x {width}")
    return int(width)
