"""A run's checkpoint: one folder that is always complete, and holds arrays and plain values beside SB3's own zip.

The folder has `model.zip` (weights, optimizers and the auxiliary, as the model itself saves them),
`replay_buffer.safetensors` for algorithms that have one, and `random.safetensors` with the state of torch's, NumPy's
and Python's generators. The environments are not saved: a resumed run starts new episodes.
"""

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her import HerReplayBuffer

from ..clrl.stores import FrameReplayBuffer
from ..core.files import existing, whole_folder

FOLDER = "checkpoint"
FRAMES = "frames/"  # before the names of a FrameReplayBuffer's frames


def save_checkpoint(model: BaseAlgorithm, run: Path, *, replay_buffer: bool = True) -> Path:
    """Write `run/checkpoint`, in place of the one before, and return it; a reader never finds half of one."""
    with whole_folder(run / FOLDER) as unfinished:
        model.save(unfinished / "model.zip")
        buffer = getattr(model, "replay_buffer", None)
        if replay_buffer and buffer is not None:
            save_replay_buffer(buffer, unfinished / "replay_buffer.safetensors")
        save_random_state(unfinished / "random.safetensors")
    return run / FOLDER


def has_checkpoint(run: Path) -> bool:
    """Return whether a run can be gone on with."""
    return existing(run / FOLDER) is not None


def load_checkpoint(
    algorithm: type[BaseAlgorithm], run: Path, env: VecEnv, device: str, **arguments: Any
) -> BaseAlgorithm:
    """Return the model of a run's checkpoint on new environments, and put the global generators where they were.

    `arguments` are what else the algorithm's `load` takes.
    """
    folder = existing(run / FOLDER)
    if folder is None:
        raise ValueError(f"{run} must hold a checkpoint, found none")
    model = algorithm.load(folder / "model.zip", env=env, device=device, **arguments)
    buffer = folder / "replay_buffer.safetensors"
    if buffer.exists():
        load_replay_buffer(model.replay_buffer, buffer)  # type: ignore[attr-defined]
        end_last_episodes(model.replay_buffer)  # type: ignore[attr-defined]
    load_random_state(folder / "random.safetensors")
    return model


def end_last_episodes(buffer: Any) -> None:
    """End the episodes that a hindsight buffer was in, which new environments do not continue."""
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it does so
            buffer.truncate_last_trajectory()


def save_replay_buffer(buffer: Any, path: Path) -> None:
    """Save the filled rows of every array of a replay buffer (also those in dictionaries, as Dict buffers have).

    Of a `FrameReplayBuffer` also its frames.
    """
    rows = buffer.buffer_size if buffer.full else min(buffer.pos + 1, buffer.buffer_size)
    arrays = {
        name: np.ascontiguousarray(array[:rows] if array.shape[:1] == (buffer.buffer_size,) else array)
        for name, array in _arrays(buffer).items()
    }
    if isinstance(buffer, FrameReplayBuffer):
        arrays |= {f"{FRAMES}{name}": np.ascontiguousarray(own) for name, own in buffer.frames.arrays(rows).items()}
    save_file(arrays, path, metadata={"pos": str(buffer.pos), "full": str(int(buffer.full))})


def load_replay_buffer(buffer: Any, path: Path) -> None:
    """Fill a replay buffer of the same size and spaces with what :func:`save_replay_buffer` wrote."""
    arrays = _arrays(buffer)
    with safe_open(path, framework="np") as file:
        names = set(file.keys())
        if isinstance(buffer, FrameReplayBuffer):
            frames = {name for name in names if name.startswith(FRAMES)}
            if not frames:
                raise ValueError(f"{path} must hold the frames that observations are made of, and was saved without")
            buffer.frames.restore(**{name.removeprefix(FRAMES): file.get_tensor(name) for name in frames})
            names -= frames
        for name in names:
            saved = file.get_tensor(name)
            if name not in arrays or arrays[name].shape[1:] != saved.shape[1:] or len(arrays[name]) < len(saved):
                raise ValueError(
                    f"a replay buffer must be resumed with the size and spaces it was saved with, got {name} "
                    f"{saved.shape} for {arrays[name].shape if name in arrays else 'a buffer without it'}"
                )
            arrays[name][: len(saved)] = saved
        buffer.pos, buffer.full = int(file.metadata()["pos"]), file.metadata()["full"] == "1"


def _arrays(buffer: Any) -> dict[str, np.ndarray]:
    found = {}
    for name, value in vars(buffer).items():
        if isinstance(value, np.ndarray) and value.dtype != object:
            found[name] = value
        elif isinstance(value, dict):
            found |= {f"{name}/{key}": array for key, array in value.items() if isinstance(array, np.ndarray)}
    return found


def save_random_state(path: Path) -> None:
    """Save the state of the global generators of torch (CPU and CUDA), NumPy and Python."""
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 (SB3 draws from it)
    version, words, gauss = random.getstate()
    arrays: dict[str, np.ndarray] = {
        "torch": torch.get_rng_state().numpy(),
        "numpy": np.asarray(keys),
        "python": np.array(words, dtype=np.int64),
    }
    if torch.cuda.is_available():
        arrays |= {f"cuda/{i}": state.numpy() for i, state in enumerate(torch.cuda.get_rng_state_all())}
    values = {"numpy": [position, has_gauss, cached], "python": [version, gauss]}
    save_file(arrays, path, metadata={"values": json.dumps(values)})


def load_random_state(path: Path) -> None:
    """Put the global generators where :func:`save_random_state` found them."""
    with safe_open(path, framework="np") as file:
        values = json.loads(file.metadata()["values"])
        torch.set_rng_state(torch.from_numpy(file.get_tensor("torch")))
        position, has_gauss, cached = values["numpy"]
        np.random.set_state(("MT19937", file.get_tensor("numpy"), position, has_gauss, cached))  # noqa: NPY002
        version, gauss = values["python"]
        random.setstate((version, tuple(file.get_tensor("python").tolist()), gauss))
        cuda = sorted(name for name in file.keys() if name.startswith("cuda/"))
        if cuda and torch.cuda.device_count() == len(cuda):
            torch.cuda.set_rng_state_all([torch.from_numpy(file.get_tensor(name)) for name in cuda])
