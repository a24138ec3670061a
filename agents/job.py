"""`contraux rl`: train one agent into one run folder. `configs/rl.yaml` describes what it reads."""

import hashlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.vec_env import VecEnv

from ..clrl import ContrastiveAuxiliary
from ..clrl.exploration import NoveltyBonus
from ..core.check import number, whole
from ..core.files import read_json, write_json
from ..core.interruption import INTERRUPTED
from ..core.preset import EXCHANGED, exchanged_on_line
from ..core.provenance import versions
from .agent import make_agent
from .auxiliary import with_auxiliary
from .checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from .recording import Checkpoints, Clock, Episodes, ProgressBar, Stop, go_on_with_evaluations, progress_logger
from .result import completed, read_episodes, show

SECTIONS = {
    "evaluation": "evaluation.every=null evaluates at the end only",
    "checkpoint": "checkpoint.every=null saves at the end only",
    "auxiliary": "objective=none trains without one",
}
"""Sections of the config that cannot be left out, and what to write instead."""


def main(cfg: DictConfig) -> None:
    """Train what the config describes, and print what came of it.

    Raises:
        ValueError: a value breaks its rule; the sentence says which.
        SystemExit: with code 130 when SIGINT or SIGTERM ended the run, after its checkpoint was written.
    """
    run, result = perform(cfg)
    show(run, result)
    if result["status"] == "interrupted":
        raise SystemExit(INTERRUPTED)


def perform(cfg: DictConfig) -> tuple[Path, dict[str, Any]]:
    """Instantiate what the config describes, train, and leave `result.json` in Hydra's output folder.

    Returns:
        The folder, and what `result.json` holds.
    """
    run = Path(HydraConfig.get().runtime.output_dir)
    if cfg.threads is not None:
        torch.set_num_threads(whole("threads", cfg.threads, 1))
    identity = {"arm": cfg.get("arm"), "seed": cfg.seed, "steps": cfg.steps}
    if cfg.resume:
        refuse_finished(run, cfg.steps)
    else:
        refuse_used(run)
    write_json(run / ("versions.resumed.json" if cfg.resume else "versions.json"), versions())
    OmegaConf.save({**cfg, "resume": None}, run / "config.yaml", resolve=True)
    write_json(run / "result.json", {"status": "running", **identity})
    try:
        arguments = instantiate(cfg)
        if arguments["auxiliary"] is not None:  # with the parts exchanged, which config.yaml has beside it
            OmegaConf.save(arguments["auxiliary"].config, run / "objective.yaml", resolve=True)
        result = {**train(run, **arguments, resume=bool(cfg.resume)), **identity}
    except Exception as error:
        write_json(run / "result.json", failure(identity, error))
        raise
    write_json(run / "result.json", result)
    return run, result


def instantiate(cfg: DictConfig) -> dict[str, Any]:
    """Turn a config into the arguments of :func:`train`, and check its header."""
    for missing in sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"{missing} must be given: {missing}=…")
    whole("seed", cfg.seed)
    whole("steps", cfg.steps, 1)
    number("weight", cfg.weight, low=0)
    algorithm = cfg.agent.algorithm.get("path", "")
    if algorithm.startswith("sb3_contrib") and importlib.util.find_spec("sb3_contrib") is None:
        raise ValueError(f"{algorithm} needs sb3-contrib, which is not installed: pip install 'contraux[contrib]'")
    agent = hydra.utils.instantiate(cfg.agent, _convert_="all")
    check_sections(cfg)
    cfg = with_parts(cfg)
    plain = cfg.objective is None or cfg.objective.module is None
    check_encoder(cfg, auxiliary=not plain)
    augmentation = hydra.utils.instantiate(cfg.augmentation)
    exploration = hydra.utils.instantiate(cfg.get("exploration"))
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    return {
        "make_env": hydra.utils.instantiate(cfg.env, _convert_="all"),
        "algorithm": agent.pop("algorithm"),
        "learn": agent.pop("learn", {}),
        "evaluation_callback": agent.pop("evaluation_callback", EvalCallback),
        "agent": {**agent, "device": cfg.device},
        "encoder": hydra.utils.instantiate(cfg.encoder) if OmegaConf.select(cfg, "encoder.checkpoint") else None,
        "auxiliary": None if plain else hydra.utils.instantiate(cfg.auxiliary),
        "exploration": exploration if isinstance(exploration, BaseCallback) else None,
        "callbacks": [augmentation] if isinstance(augmentation, BaseCallback) else [],
        "steps": cfg.steps,
        "seed": cfg.seed,
        "evaluate_every": steps_or_none("evaluation.every", cfg.evaluation.every),
        "evaluation_episodes": whole("evaluation.episodes", cfg.evaluation.episodes, 1),
        "checkpoint_every": steps_or_none("checkpoint.every", cfg.checkpoint.every),
        "keep_replay_buffer": cfg.checkpoint.replay_buffer,
        "tensorboard": cfg.tensorboard,
        "progress_bar": (os.isatty(2) if cfg.progress_bar is None else cfg.progress_bar) and not sweep,
    }


def check_sections(cfg: DictConfig) -> None:
    """Raise ValueError where the line replaced a section of several keys by one value."""
    for section, instead in SECTIONS.items():
        found = cfg.get(section)
        if not isinstance(found, DictConfig):
            raise ValueError(f"{section} must keep its keys, got {'null' if found is None else found}: {instead}")


def check_encoder(cfg: DictConfig, *, auxiliary: bool) -> None:
    """Raise ValueError for a mode of an encoder that is not given, or of one that leaves the auxiliary idle."""
    checkpoint, mode = (OmegaConf.select(cfg, f"encoder.{key}") for key in ("checkpoint", "mode"))
    if mode in ("frozen", "slow") and not checkpoint:
        raise ValueError(f"encoder.mode={mode} needs a pretrained encoder: encoder.checkpoint=FOLDER")
    if mode == "frozen" and auxiliary:
        raise ValueError(
            "an auxiliary needs an encoder that is trained, got encoder.mode=frozen: objective=none trains without an "
            "auxiliary, encoder.mode=finetune trains the encoder too"
        )


def with_parts(cfg: DictConfig) -> DictConfig:
    """Return the config whose auxiliary has the loss, sampler and similarity that were chosen by name, if any were.

    Raises:
        ValueError: the objective has no such part, or the line also sets what is replaced.
    """
    parts = {name: cfg.get(name) for name in EXCHANGED}
    words = HydraConfig.get().overrides.task
    objective = exchanged_on_line(cfg.auxiliary.objective, parts, words, "objective.module")
    return OmegaConf.create({**cfg, "auxiliary": {**cfg.auxiliary, "objective": objective}})


def train(
    run: Path,
    *,
    make_env: Callable[..., VecEnv],
    algorithm: type[BaseAlgorithm],
    agent: Mapping[str, Any],
    learn: Mapping[str, Any],
    encoder: Callable[..., dict[str, Any]] | None,
    auxiliary: ContrastiveAuxiliary | None,
    exploration: NoveltyBonus | None,
    callbacks: list[BaseCallback],
    steps: int,
    seed: int,
    evaluation_callback: Callable[..., EvalCallback],
    evaluate_every: int | None,
    evaluation_episodes: int,
    checkpoint_every: int | None,
    keep_replay_buffer: bool,
    tensorboard: bool,
    progress_bar: bool,
    resume: bool = False,
) -> dict[str, Any]:
    """Train until the model has taken `steps` steps, or was told to stop, and write all but `result.json` into `run`.

    Nothing here draws from a global generator, so that runs which differ only in what the auxiliary does to the weights
    stay bit-identical. With `resume`, model, auxiliary, bonus, replay buffer and global generators go on from the
    checkpoint in `run`; environments do not, and start new episodes from a seed of their own.

    Returns:
        What `result.json` holds: status, returns, area, times, and a hash of the policy's final weights.
    """
    env = make_env(seed=seed)
    if resume:
        plain = auxiliary is None and exploration is None
        kind, own = (algorithm, {}) if plain else (with_auxiliary(algorithm), {"exploration": exploration})
        model = load_checkpoint(kind, run, env, agent["device"], **own)
        env.seed(derived_seed(seed, "resumed", model.num_timesteps))
    else:
        model = make_agent(
            algorithm, env, auxiliary=auxiliary, exploration=exploration, encoder=encoder, seed=seed, **agent
        )
    until = model.num_timesteps if resume else None
    model.set_logger(progress_logger(run, tensorboard=tensorboard, until=until))

    evaluation_env = make_env(seed=derived_seed(seed, "evaluation"), n_envs=min(env.num_envs, evaluation_episodes))
    evaluation = evaluation_callback(
        evaluation_env,
        n_eval_episodes=evaluation_episodes,
        eval_freq=max(evaluate_every // env.num_envs, 1) if evaluate_every else 0,
        log_path=str(run),
        verbose=0,
    )
    if until is not None:
        go_on_with_evaluations(evaluation, run / "evaluations.npz", until)
    stop, bar = Stop(), ProgressBar()
    recorders = [Episodes(run / "episodes.csv", until), evaluation]
    checkpoints = Checkpoints(run, checkpoint_every, replay_buffer=keep_replay_buffer)
    everything = [*callbacks, *recorders, checkpoints, stop, *([bar] if progress_bar else [])]
    begun = model.num_timesteps
    try:
        with stop.interruption.listening(), Clock() as clock:
            model.learn(steps - begun, everything, reset_num_timesteps=not resume, **learn)
        interrupted = stop.interruption.reason is not None
        if not interrupted:
            evaluation.eval_freq = 1
            evaluation_env.seed(derived_seed(seed, "final evaluation"))
            evaluation.on_step()
        save_checkpoint(model, run, replay_buffer=keep_replay_buffer)
    finally:
        bar.close()
        model.logger.close()
        env.close()
        evaluation_env.close()
    speed = {
        "seconds": round(clock.wall, 3),
        "cpu_seconds": round(clock.cpu, 3),
        "steps_per_second": round((model.num_timesteps - begun) / clock.wall, 1),
        "resumed_at": until,
    }
    if interrupted:
        return {"status": "interrupted", "by": stop.interruption.reason, "taken_steps": model.num_timesteps, **speed}
    returns = np.asarray(evaluation.evaluations_results[-1])
    successes = np.asarray(evaluation.evaluations_successes[-1]) if evaluation.evaluations_successes else None
    episodes = read_episodes(run / "episodes.csv")
    learning = completed(*episodes, steps=model.num_timesteps, evaluation=returns, successes=successes)
    return {"status": "completed", "taken_steps": model.num_timesteps, **learning, "weights": weights(model), **speed}


def weights(model: BaseAlgorithm) -> str:
    """Return the SHA-256 of every tensor of the policy, targets included: equal for bit-identical weights only."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.policy.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def derived_seed(seed: int, purpose: str, step: int = 0) -> int:
    """Return a seed for another purpose than training, independent of it and of every neighbouring seed."""
    words = np.frombuffer(purpose.encode().ljust(32), dtype=np.uint32).tolist()
    return int(np.random.SeedSequence([seed, step, *words]).generate_state(1)[0] >> 1)  # SB3 adds the rank: stay < 2^32


def refuse_used(run: Path) -> None:
    """Raise ValueError where a folder already holds a run that one could go on with, so that none is overwritten."""
    if (status := read_result(run).get("status")) == "completed" or has_checkpoint(run):
        raise ValueError(
            f"{run} already holds a run ({status}): resume={run} goes on with it, or give another hydra.run.dir"
        )


def refuse_finished(run: Path, steps: Any) -> None:
    """Raise ValueError where there is no checkpoint to resume from, or nothing left to do."""
    if not has_checkpoint(run):
        raise ValueError(f"resume needs a run folder with a checkpoint, and {run} has none: start the run anew")
    taken = read_result(run).get("taken_steps", 0)
    if taken >= whole("steps", steps, 1):
        raise ValueError(f"the run in {run} has taken {taken} of {steps} steps: resume={run} steps=MORE goes on")


def read_result(run: Path) -> dict[str, Any]:
    """Return what `result.json` of a run folder holds; empty where there is none yet."""
    return read_json(run / "result.json")


def steps_or_none(name: str, value: Any) -> int | None:
    """Return a number of steps >= 1, or None for never."""
    return None if value is None else whole(name, value, 1)


def failure(identity: Mapping[str, Any], error: BaseException) -> dict[str, Any]:
    """Return the result of a run that failed, with what the error says, rid of Hydra's wrapping."""
    while isinstance(error, hydra.errors.InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return {"status": "failed", **identity, "error": str(error) if type(error) is ValueError else repr(error)}
