"""`contraux diffusion`: train one denoiser into one run folder. `configs/diffusion.yaml` describes what it reads."""

import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from accelerate import PartialState
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ...core.check import number, whole
from ...core.files import write_json
from ...core.interruption import INTERRUPTED
from ...core.pretraining.result import without_hydra
from ...core.provenance import versions
from ...core.training import checkpoint
from ...core.training.run_folder import in_turn, name_of, refuse_finished, refuse_used, shared
from ...core.training.state import shared_state
from ..attach import attach
from ..auxiliary import Auxiliary
from ..images import Images, images_of
from .evaluation import Evaluation
from .grids import Grids
from .pipeline import FOLDER, save_pipeline
from .result import show
from .trainer import Trained, Trainer


def main(cfg: DictConfig) -> None:
    """Train what the config describes, and print what came of it.

    Raises:
        ValueError: a value breaks its rule; the sentence says which.
        SystemExit: with code 130 when SIGINT or SIGTERM ended the run, after its checkpoint was written.
    """
    quiet()
    state = shared_state(cfg.device)
    run = shared(Path(HydraConfig.get().runtime.output_dir))
    result = perform(cfg, run)
    if state.is_main_process:
        show(run, result)
    if result["status"] == "interrupted":
        raise SystemExit(INTERRUPTED)


def quiet() -> None:
    """Keep diffusers and Accelerate from a line for every file, and from warning of a U-Net where DiTs are usual."""
    import diffusers  # here: it takes long to import, and `--help` needs none of it

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.WARNING)


def perform(cfg: DictConfig, run: Path) -> dict[str, Any]:
    """Instantiate what the config describes, train, save the pipeline, and return what `result.json` holds."""
    if cfg.threads is not None:
        torch.set_num_threads(whole("threads", cfg.threads, 1))
    for missing in sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"{missing} must be given: {missing}=…")
    whole("seed", cfg.seed)
    resume = bool(cfg.resume)
    (refuse_finished if resume else refuse_used)(run, FOLDER)
    state = PartialState()
    identity = {
        "model": name_of(cfg.model),
        "objective": name_of(cfg.objective.module),
        "data": name_of(cfg.data),
        "seed": cfg.seed,
    }
    if state.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / ("versions.resumed.json" if resume else "versions.json"), versions())
        write_json(run / "result.json", {"status": "running", **identity})
        OmegaConf.save({**cfg, "resume": None}, run / "config.yaml", resolve=True)
    state.wait_for_everyone()
    try:
        images = in_turn(lambda: load(cfg, "train"))
        trainer = instantiate(cfg, images, run)
        result = {**train(trainer, cfg, run, resume=resume), **identity}
    except Exception as error:
        if state.is_main_process:
            write_json(run / "result.json", {"status": "failed", **identity, "error": without_hydra(error)})
        raise
    if state.is_main_process:
        write_json(run / "result.json", result)
        if result["status"] == "completed":
            checkpoint.remove(run)  # there is nothing left to go on with
    return result


def train(trainer: Trainer, cfg: DictConfig, run: Path, *, resume: bool) -> dict[str, Any]:
    """Train, save the pipeline, and look at what the denoiser is worth."""
    state, begun = PartialState(), time.process_time()
    trained: Trained = trainer.fit(resume=resume)
    result: dict[str, Any] = {
        **trained._asdict(),
        "cpu_seconds": round(time.process_time() - begun, 3),
        "batch_size": trainer.batch_size,
        "processes": state.num_processes,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
    }
    if trainer.auxiliary is not None:
        result["places"] = trainer.auxiliary.places
    if trained.status == "completed" and state.is_main_process:
        save_pipeline(trainer.averaged, trainer.process, run / FOLDER, trainer.images.classes)
        result["metrics"] = worth(trainer, cfg, run)
    return result


def worth(trainer: Trainer, cfg: DictConfig, run: Path) -> dict[str, float] | None:
    """Return what the measures of `evaluation` find; None where there are none, or no test split."""
    if cfg.evaluation is None:
        return None
    evaluation = evaluation_of(cfg)
    try:
        test = load(cfg, "test")
    except ValueError as error:
        warnings.warn(f"the denoiser was not evaluated: {error}", stacklevel=2)
        return None
    return evaluation(
        trainer.averaged,
        trainer.process,
        trainer.images,
        test,
        run,
        data=name_of(cfg.data),
        conditional=trainer.conditional,
        guidance=cfg.guidance,
        seed=cfg.seed,
    )


def evaluation_of(cfg: DictConfig) -> Evaluation:
    """Return the measures of a run's end."""
    return Evaluation(**hydra.utils.instantiate(cfg.evaluation, _convert_="all"))


def load(cfg: DictConfig, split: str) -> Images:
    """Return the images of a split."""
    return images_of(hydra.utils.instantiate(cfg.data, _convert_="all")(split=split), cfg.size)


def instantiate(cfg: DictConfig, images: Images, run: Path) -> Trainer:
    """Turn a config into a trainer."""
    shape = tuple(images.tensor.shape[1:])
    guidance = number("guidance", cfg.guidance, 1)
    evaluation = None if cfg.evaluation is None else evaluation_of(cfg)
    torch.manual_seed(cfg.seed)  # of the weights
    model = hydra.utils.instantiate(cfg.model, _convert_="all")(shape, bool(cfg.conditional))
    process = hydra.utils.instantiate(cfg.scheduler, _convert_="all")
    if evaluation is not None:
        evaluation.check(model, process, images, data=name_of(cfg.data))
    torch.manual_seed(cfg.seed)  # of the heads
    auxiliary = auxiliary_of(cfg, model)
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    bar = (os.isatty(2) if cfg.progress_bar is None else cfg.progress_bar) and not sweep
    grids = Grids(
        folder=run,
        shape=shape,
        classes=len(images.classes) if cfg.conditional else 0,
        guidance=guidance,
        seed=cfg.seed,
        **cfg.samples,
    )
    found: Trainer = hydra.utils.instantiate(cfg.trainer, _convert_="all")(
        model=model,
        images=images,
        process=process,
        optimizer=hydra.utils.instantiate(cfg.optimizer, _convert_="all"),
        folder=run,
        auxiliary=auxiliary,
        grids=grids,
        trackers=list(cfg.trackers),
        device=cfg.device,
        progress_bar=bar,
    )
    return found


def auxiliary_of(cfg: DictConfig, model: torch.nn.Module) -> Auxiliary | None:
    """Return the objective attached to the denoiser, or None for objective=none."""
    if cfg.objective.module is None:
        return None
    at: Any = OmegaConf.to_container(cfg.at) if OmegaConf.is_config(cfg.at) else cfg.at
    return attach(model, at=at, objective=cfg.objective, trusted=True)  # the line or the file was looked at before
