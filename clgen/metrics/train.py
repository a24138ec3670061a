"""`contraux extractor`: train the classifier that metrics look at images with: `configs/extractor.yaml`."""

import time
from collections.abc import Callable
from pathlib import Path

import hydra.utils
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ...core.check import whole
from ...core.data.protocol import DataFactory
from ...core.training.run_folder import name_of
from ..images import images_of
from .classifier import Classifier
from .extractor import NoLabels, Reals


def main(cfg: DictConfig) -> None:
    """Train the classifier, save it, and say what it gets right.

    Raises:
        ValueError: a value breaks its rule; the sentence says which.
    """
    for missing in sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"{missing} must be given: {missing}=…")
    if cfg.threads is not None:
        torch.set_num_threads(whole("threads", cfg.threads, 1))
    data: DataFactory = hydra.utils.instantiate(cfg.data, _convert_="all")
    train = images_of(data(split="train"), cfg.size)
    test = images_of(data(split="test"), cfg.size) if cfg.held_out else None
    name = name_of(cfg.data)
    folder = Path(cfg.folder or Path("extractors") / f"{name}_{train.tensor.shape[-1]}")
    if folder.exists():
        raise ValueError(f"folder must be new, and {folder} is there already: remove it to train again")
    begun = time.perf_counter()
    make: Callable[..., Classifier] = hydra.utils.instantiate(cfg.classifier, _convert_="all")
    try:
        found = make(Reals(train, test, name), folder=folder)
    except NoLabels as error:  # which only a report can do without
        raise ValueError(str(error)) from error
    held_out = found.metadata["held_out"]
    accuracy = "not measured" if held_out is None else f"{100 * held_out:.2f} %"
    Console(highlight=False).print(
        f"{found.name}: accuracy on held-out images {accuracy}, {found.encoder.out_features} features, "
        f"{time.perf_counter() - begun:.0f} s: {folder}",
        soft_wrap=True,
    )
