"""`contraux pretrain`: train one encoder into one run folder. `configs/pretrain.yaml` describes what it reads."""

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from accelerate import PartialState
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ..check import whole
from ..data import DataSet
from ..encoders import PretrainedEncoder, describe
from ..evaluation import evaluate, features
from ..evaluation.picture import draw
from ..files import write_json
from ..interruption import INTERRUPTED
from ..preset import EXCHANGED, exchanged_on_line, option
from ..provenance import versions
from ..training import checkpoint
from ..training.run_folder import in_turn, name_of, refuse_finished, refuse_used, shared
from ..training.state import shared_state
from .pictures import draw_views
from .result import show, without_hydra
from .trainer import Trained, Trainer

SIZES = ((16, "small_cnn", "digits"), (64, "resnet18", "cifar"))
"""Up to this many pixels, this encoder and these views; above, resnet50 and mocov2."""


def main(cfg: DictConfig) -> None:
    """Pretrain what the config describes, and print what came of it.

    Raises:
        ValueError: a value breaks its rule; the sentence says which.
        SystemExit: with code 130 when SIGINT or SIGTERM ended the run, after its checkpoint was written.
    """
    logging.getLogger("accelerate").setLevel(logging.WARNING)  # not a line for every file of a checkpoint
    state = shared_state(cfg.device)
    run = shared(Path(HydraConfig.get().runtime.output_dir))
    result = perform(cfg, run)
    if state.is_main_process:
        show(run, result)
    if result["status"] == "interrupted":
        raise SystemExit(INTERRUPTED)


def perform(cfg: DictConfig, run: Path) -> dict[str, Any]:
    """Instantiate what the config describes, train, save the encoder, and return what `result.json` holds."""
    if cfg.threads is not None:
        torch.set_num_threads(whole("threads", cfg.threads, 1))
    for missing in sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"{missing} must be given: {missing}=…")
    whole("seed", cfg.seed)
    resume = bool(cfg.resume)
    (refuse_finished if resume else refuse_used)(run, "encoder")
    state = PartialState()
    identity = {"method": name_of(cfg.method), "data": name_of(cfg.data), "seed": cfg.seed}
    if state.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / ("versions.resumed.json" if resume else "versions.json"), versions())
        write_json(run / "result.json", {"status": "running", **identity})
    try:
        data = in_turn(lambda: hydra.utils.instantiate(cfg.data, _convert_="all")(split="train"))
        cfg = with_choices(cfg, data.shape)
        if state.is_main_process:
            OmegaConf.save({**cfg, "resume": None}, run / "config.yaml", resolve=True)
        state.wait_for_everyone()
        torch.manual_seed(cfg.seed)  # of the weights
        trainer = instantiate(cfg, data, run)
        result = {**train(trainer, cfg, run, resume=resume), **identity}
    except Exception as error:
        if state.is_main_process:
            write_json(run / "result.json", {"status": "failed", **identity, "error": without_hydra(error)})
        raise
    if state.is_main_process:
        write_json(run / "result.json", result)
        if result["status"] == "completed":
            checkpoint.remove(run)  # some times as large as the encoder, and there is nothing left to go on with
    return result


def train(trainer: Trainer, cfg: DictConfig, run: Path, *, resume: bool) -> dict[str, Any]:
    """Train, save the encoder and the pictures, and look at what the encoder is worth."""
    state = PartialState()
    if cfg.pictures and not resume and state.is_main_process:
        try:
            draw_views(trainer.views, trainer.data, cfg.seed, run / "views.png")
        except ImportError:
            warnings.warn("no pictures without matplotlib: pip install 'contraux[jobs]'", stacklevel=2)
    trained: Trained = trainer.fit(resume=resume)
    result: dict[str, Any] = {**trained._asdict(), "batch_size": trainer.batch_size, "processes": state.num_processes}
    if trained.status == "completed" and state.is_main_process:
        encoder = pretrained(cfg, trainer, trained)
        encoder.save_pretrained(run / "encoder")
        if cfg.evaluation:
            picture = run / "embedding.png" if cfg.pictures else None
            result["evaluation"] = worth(encoder, cfg, trainer.data, picture)
    return result


def pretrained(cfg: DictConfig, trainer: Trainer, trained: Trained) -> PretrainedEncoder:
    """Return what is kept: the encoder, with the normalisation of the data and a word on where it comes from."""
    data = trainer.data
    metadata = {
        "method": name_of(cfg.method),
        "data": name_of(cfg.data),
        "classes": list(data.classes),
        "epochs": cfg.epochs,
        "batch_size": cfg.batch_size,
        "seed": cfg.seed,
        "loss": trained.last["loss"],
        "versions": versions()["libraries"],
    }
    encoder = trainer.method.encoder
    return PretrainedEncoder(encoder, data.shape, data.mean, data.std, describe(cfg.encoder), metadata)


def worth(encoder: PretrainedEncoder, cfg: DictConfig, train: DataSet, picture: Path | None) -> dict[str, Any] | None:
    """Return what the quick measures find, in percent, and draw the test features.

    None where the data have no labels, or no test split.
    """
    device = next(encoder.parameters()).device
    try:
        test = hydra.utils.instantiate(cfg.data, _convert_="all")(split="test")
        found = evaluate(encoder, train, test, device=device)
        if picture is not None:
            shown = {"pretrained encoder": features(encoder, test, device=device)}
            draw(shown, picture, method="tsne", classes=test.classes)
        return found
    except (ValueError, ImportError) as error:
        warnings.warn(f"the encoder was not evaluated: {error}", stacklevel=2)
        return None


def instantiate(cfg: DictConfig, data: DataSet, run: Path) -> Trainer:
    """Turn a config into a trainer."""
    encoder = hydra.utils.instantiate(cfg.encoder, _convert_="all")(data.shape)
    method = hydra.utils.instantiate(with_parts(cfg).method, _convert_="all")(encoder)
    views = hydra.utils.instantiate(cfg.views, _convert_="all")
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    bar = (os.isatty(2) if cfg.progress_bar is None else cfg.progress_bar) and not sweep
    return hydra.utils.instantiate(cfg.trainer, _convert_="all")(
        method=method,
        data=data,
        views=views(shape=data.shape, mean=data.mean, std=data.std),
        optimizer=hydra.utils.instantiate(cfg.optimizer, _convert_="all"),
        folder=run,
        trackers=list(cfg.trackers),
        device=cfg.device,
        progress_bar=bar,
    )


def with_choices(cfg: DictConfig, shape: Sequence[int]) -> DictConfig:
    """Return the config with an encoder and views for inputs of this shape, where none were chosen."""
    named, views_named = suitable(shape)
    encoder, views = cfg.encoder, cfg.views
    if encoder is None:
        encoder = option("encoder", named)
        if named == "resnet18":
            encoder.stem = "cifar"
    if views is None:
        views = option("views", views_named)
    return OmegaConf.create({**cfg, "encoder": encoder, "views": views})


def suitable(shape: Sequence[int]) -> tuple[str, str]:
    """Return the names of an encoder and of views for inputs `(C, H, W)` or `(D,)`."""
    if len(shape) == 1:
        return "mlp", "noise"
    encoder, views = next((named for size, *named in SIZES if max(shape[1:]) <= size), ("resnet50", "mocov2"))
    return encoder, views if shape[0] in (1, 3) else "shift"  # colours need three channels


def with_parts(cfg: DictConfig) -> DictConfig:
    """Return the config whose method has the loss, sampler and similarity that were chosen by name, if any were.

    Raises:
        ValueError: the method has no such part, or the line also sets what is replaced.
    """
    parts = {name: cfg.get(name) for name in EXCHANGED}
    words = HydraConfig.get().overrides.task
    module = OmegaConf.create({"module": cfg.method.objective})
    objective = exchanged_on_line(module, parts, words, "method.objective").module
    return OmegaConf.create({**cfg, "method": {**cfg.method, "objective": objective}})
