"""`contraux gan`: train one GAN into one run folder. `configs/gan.yaml` describes what it reads."""

import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from accelerate import PartialState
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ...core.check import whole
from ...core.files import write_json
from ...core.interruption import INTERRUPTED
from ...core.preset import option
from ...core.pretraining.result import without_hydra
from ...core.provenance import versions
from ...core.training import checkpoint
from ...core.training.run_folder import in_turn, name_of, refuse_finished, refuse_used, shared
from ...core.training.state import shared_state
from ..attach import attach
from ..auxiliary import Auxiliary
from ..images import Images, images_of
from .evaluation import Evaluation
from .parts import SIZES
from .players import Backbone
from .result import show
from .saving import save_part
from .trainer import Trainer


def main(cfg: DictConfig) -> None:
    """Train the GAN that the config describes, and print what came of it.

    Raises:
        ValueError: a value breaks its rule; the sentence says which.
        SystemExit: with code 130 when SIGINT or SIGTERM ended the run, after its checkpoint was written.
    """
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    state = shared_state(cfg.device)
    run = shared(Path(HydraConfig.get().runtime.output_dir))
    result = perform(cfg, run)
    if state.is_main_process:
        show(run, result)
    if result["status"] == "interrupted":
        raise SystemExit(INTERRUPTED)


def perform(cfg: DictConfig, run: Path) -> dict[str, Any]:
    """Instantiate what the config describes, train, save the players, and return what `result.json` holds."""
    if cfg.threads is not None:
        torch.set_num_threads(whole("threads", cfg.threads, 1))
    for missing in sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"{missing} must be given: {missing}=…")
    whole("seed", cfg.seed)
    resume = bool(cfg.resume)
    (refuse_finished if resume else refuse_used)(run, "generator")
    state = PartialState()
    identity = {"method": name_of(cfg.method.module), "data": name_of(cfg.data), "seed": cfg.seed}
    if state.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / ("versions.resumed.json" if resume else "versions.json"), versions())
        write_json(run / "result.json", {"status": "running", **identity})
    try:
        data = in_turn(lambda: hydra.utils.instantiate(cfg.data, _convert_="all")(split="train"))
        cfg = with_choices(cfg, data.shape)
        every = images_of(data, cfg.size)
        images = images_for(cfg, every)
        evaluation = hydra.utils.instantiate(cfg.evaluation, _convert_="all")  # says now what is wrong
        test = None if evaluation is None else in_turn(lambda: _test_images(cfg))
        if isinstance(evaluation, Evaluation):
            evaluation.check(every, test, data=name_of(cfg.data))
        if state.is_main_process:
            OmegaConf.save({**cfg, "resume": None}, run / "config.yaml", resolve=True)
        state.wait_for_everyone()
        torch.manual_seed(cfg.seed)  # of the weights
        trainer = instantiate(cfg, images, run)
        result = {**train(trainer, cfg, run, resume=resume), **identity}
        if result["status"] == "completed" and evaluation is not None and state.is_main_process:
            start = time.perf_counter()
            result["metrics"] = evaluation(
                trainer.average, every, test, run, data=name_of(cfg.data), seed=cfg.seed
            )  # fmt: skip
            result["evaluation_seconds"] = round(time.perf_counter() - start, 3)
    except Exception as error:
        if state.is_main_process:
            write_json(run / "result.json", {"status": "failed", **identity, "error": without_hydra(error)})
        raise
    if state.is_main_process:
        write_json(run / "result.json", result)
        if result["status"] == "completed":
            checkpoint.remove(run)
    return result


def train(trainer: Trainer, cfg: DictConfig, run: Path, *, resume: bool) -> dict[str, Any]:
    """Train, and save both players and the generator's average."""
    state, begun = PartialState(), time.process_time()
    trained = trainer.fit(resume=resume)
    result = {
        **trained._asdict(),
        "cpu_seconds": round(time.process_time() - begun, 3),
        "batch_size": trainer.batch_size,
        "processes": state.num_processes,
    }
    if state.is_main_process:
        known = describe(cfg, trainer, trained.step)
        save_part(trainer.average, "generator", run / "generator", {**known, "average": True})
        save_part(trainer.generator, "generator", run / "generator_last", {**known, "average": False})
        save_part(trainer.discriminator, "discriminator", run / "discriminator", known)
    return result


def describe(cfg: DictConfig, trainer: Trainer, step: int) -> dict[str, Any]:
    """Return how the players can be built again, and a word on where they come from."""
    auxiliary = trainer.auxiliary
    return {
        "backbone": _plain(cfg.backbone),
        "size": cfg.size,
        "channels": trainer.images.tensor.shape[1],
        "classes": list(trainer.images.classes) if trainer.conditional else [],
        "metadata": {
            "method": name_of(cfg.method.module),
            "at": None if auxiliary is None else auxiliary.places,
            "data": name_of(cfg.data),
            "step": step,
            "seed": cfg.seed,
            "versions": versions()["libraries"],
        },
    }


def with_choices(cfg: DictConfig, shape: Sequence[int]) -> DictConfig:
    """Return the config with a size and an augmentation, where none were chosen.

    The size is the smallest of the backbones' that holds images of `shape` `(C, H, W)`. A method that compares views of
    an image is given `augment=affine`, everything else none.

    Raises:
        ValueError: the data are no images.
    """
    if len(shape) != 3:
        raise ValueError(
            f"a GAN needs images (C, H, W), got examples of shape {tuple(shape)}: choose another data=NAME"
        )
    size, augment = cfg.size, cfg.augment
    if size is None:
        size = next((one for one in SIZES if one >= max(shape[1:])), SIZES[-1])
    if augment is None:
        augment = option("gan/augment", "affine" if _views(cfg.method.module) else "none")
    found: DictConfig = OmegaConf.create({**cfg, "size": size, "augment": augment})
    return found


def images_for(cfg: DictConfig, found: Images) -> Images:
    """Return the images that are learnt: all that were found, or as many as `images` says, drawn by `images_seed`.

    Raises:
        ValueError: more than there are.
    """
    if cfg.images is None:
        return found
    kept = whole("images", cfg.images, 1)
    if kept > len(found.tensor):
        raise ValueError(f"images must be at most the {len(found.tensor)} of the data, got {kept}")
    drawn = torch.Generator().manual_seed(whole("images_seed", cfg.images_seed))
    rows = torch.randperm(len(found.tensor), generator=drawn)[:kept]
    return Images(found.tensor[rows], found.labels[rows], found.classes)


def instantiate(cfg: DictConfig, images: Images, run: Path) -> Trainer:
    """Return the trainer that the config describes."""
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    bar = (os.isatty(2) if cfg.progress_bar is None else cfg.progress_bar) and not sweep
    classes = len(images.classes) if cfg.conditional else 0
    backbone: Backbone = hydra.utils.instantiate(cfg.backbone, _convert_="all")(
        size=cfg.size, channels=images.tensor.shape[1], classes=classes
    )
    return hydra.utils.instantiate(cfg.trainer, _convert_="all")(
        generator=backbone.generator,
        discriminator=backbone.discriminator,
        images=images,
        adversarial=hydra.utils.instantiate(cfg.adversarial, _convert_="all"),
        generator_optimizer=hydra.utils.instantiate(cfg.optimizer.generator, _convert_="all"),
        discriminator_optimizer=hydra.utils.instantiate(cfg.optimizer.discriminator, _convert_="all"),
        augment=hydra.utils.instantiate(cfg.augment, _convert_="all"),
        auxiliary=attached(cfg, backbone.discriminator, images, classes),
        folder=run,
        trackers=list(cfg.trackers),
        device=cfg.device,
        progress_bar=bar,
    )


def attached(cfg: DictConfig, discriminator: Any, images: Images, classes: int) -> Auxiliary | None:
    """Return the method of the config on the discriminator, or None for `method=none`.

    `at=null` takes the discriminator's own places for the method's taps; `at=NAME` that module for the first of them. A
    method that must know how many classes there are is told by the data, unless the config does; queues of null keys
    hold a twentieth of the images, as InsGen's paper has it.
    """
    if cfg.method.module is None:
        return None
    taps = list(_found(cfg.method.module).taps)
    places = {tap: discriminator.taps[tap] for tap in taps if tap in discriminator.taps}
    at = OmegaConf.to_container(cfg.at) if isinstance(cfg.at, DictConfig) else cfg.at
    places |= at if isinstance(at, dict) else {} if at is None else {taps[0]: at}
    example: Any = images.tensor[:2]
    if classes:
        example = (example, torch.zeros(2, dtype=torch.long))
    method = cfg.method.copy()
    if "classes" in method.module and method.module.classes is None and images.classes:
        method.module.classes = len(images.classes)
    if "queue" in method.module and method.module.size is None:
        method.module.size = max(1, len(images.tensor) // 20)
    return attach(discriminator, places, method, example=example, trusted=True)


def _test_images(cfg: DictConfig) -> Images | None:
    """Return the images of the test split, or None where the data have none."""
    try:
        return images_of(hydra.utils.instantiate(cfg.data, _convert_="all")(split="test"), cfg.size)
    except ValueError as error:
        warnings.warn(f"the metrics have no floor of held-out images: {without_hydra(error)}", stacklevel=2)
        return None


def _views(module: Any) -> bool:
    if module is None:
        return False
    method = _found(module)
    return bool({"view", "real_key"} & {*method.roles, *method.key_roles})


def _found(module: Mapping[str, Any]) -> Any:
    return hydra.utils.get_object(str(module["_target_"]))


def _plain(node: DictConfig) -> dict[str, Any]:
    found = OmegaConf.to_container(node, resolve=True)
    return {str(key): value for key, value in found.items() if key != "_partial_"}  # type: ignore[union-attr]
