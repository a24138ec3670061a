"""`contraux sample`: images of a trained GAN. Shape legend: N images, Z latent dimension, C channels, H x W size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ..core.check import choice, whole
from ..core.training.state import shared_state
from .images import save_grid, save_pngs
from .sampling import sample
from .training_gan.saving import load_generator


def main(cfg: DictConfig) -> None:
    """Write the images that the config asks for, and print where.

    Raises:
        ValueError: a value breaks its rule; the sentence says which.
    """
    if cfg.threads is not None:
        torch.set_num_threads(whole("threads", cfg.threads, 1))
    if OmegaConf.is_missing(cfg, "checkpoint"):
        raise ValueError("checkpoint must be given: checkpoint=RUN_FOLDER")
    choice("device", cfg.device, ("auto", "cpu"))
    generator = _generator(Path(str(cfg.checkpoint)), cfg.ema)
    n = whole("n", cfg.n, 1)
    labels = labels_of(generator, n, cfg.classes)
    device = shared_state(cfg.device).device
    images = sample(generator.to(device), n, labels, seed=cfg.seed, batch_size=cfg.batch_size)
    print(_write(cfg, images, labels, generator))


def labels_of(generator: nn.Module, n: int, classes: Any) -> Tensor | None:
    """Return `(N,)` labels, the chosen classes in turn; None for an unconditional generator.

    Args:
        generator: with the attributes `classes` and, of their names, `names`.
        n: N.
        classes: a name or number, a list of them, or None for all.

    Raises:
        ValueError: a class that there is not, or classes of an unconditional generator.
    """
    count, names = int(generator.classes), [str(name) for name in generator.names]  # type: ignore[arg-type, union-attr]
    if not count:
        if classes is not None:
            raise ValueError(f"classes must be null for an unconditional generator, got {classes!r}")
        return None
    wanted = range(count) if classes is None else _listed(classes)
    numbers = [_number(one, names, count) for one in wanted]
    return torch.tensor([numbers[i % len(numbers)] for i in range(n)])


def _listed(classes: Any) -> Sequence[Any]:
    found = OmegaConf.to_container(classes) if OmegaConf.is_list(classes) else classes
    listed: list[Any] = list(found) if isinstance(found, list | tuple) else [found]
    if not listed:
        raise ValueError("classes must name at least one, got none")
    return listed


def _number(one: Any, names: Sequence[str], count: int) -> int:
    if str(one) in names:
        return names.index(str(one))
    if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < count:
        return one
    raise ValueError(f"classes must be among {', '.join(names)}, or numbers below {count}, got {one!r}")


def _generator(run: Path, average: Any) -> nn.Module:
    """Return the moving average that a run left, or the generator of its last step.

    Raises:
        ValueError: `average` is no bool, or the folder holds the other one.
    """
    if not isinstance(average, bool):
        raise ValueError(f"ema must be true or false, got {average!r}")
    last = run / "generator_last"
    generator = load_generator(last if not average and last.is_dir() else run)
    found: Any = generator.average
    if found is not None and found is not average:
        holds, other = ("the moving average", "false") if found else ("the generator of the last step", "true")
        raise ValueError(
            f"ema={other} must find that generator, and {str(run)!r} holds {holds}: checkpoint=RUN_FOLDER, or "
            f"ema={str(found).lower()}"
        )
    return generator


def _write(cfg: DictConfig, images: Tensor, labels: Tensor | None, generator: nn.Module) -> str:
    """Write a grid or PNGs, and return a sentence on where."""
    here = Path(HydraConfig.get().runtime.output_dir)
    out = None if cfg.out is None else Path(str(cfg.out))
    if cfg.grid or (out is not None and out.suffix == ".png"):
        path = here / "samples.png" if out is None else out if out.suffix == ".png" else out / "samples.png"
        columns = cfg.columns
        if columns is None and labels is not None:
            columns = len(set(labels.tolist()))
        save_grid(images, path, columns)
        return f"{len(images)} images in {path}"
    folder = here / "samples" if out is None else out
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"out must be an empty folder or a new one, got {str(folder)!r} with something in it")
    save_pngs(images, folder, labels, generator.names)  # type: ignore[arg-type]
    return f"{len(images)} images in {folder}"
