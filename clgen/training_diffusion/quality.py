"""The quality of a denoiser's images, at several numbers of sampling steps."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ...core.files import write_json
from ..diffusion.process import Process
from ..images import Images
from .grids import fixed_noise, labels_for
from .sampling import sample

QUALITY = "quality.json"


def quality(
    model: nn.Module,
    process: Process,
    train: Images,
    test: Images,
    run: Path,
    *,
    extractors: Sequence[Any],
    data: str,
    count: int,
    sampling_steps: Sequence[int],
    conditional: bool,
    guidance: float,
    seed: int,
) -> dict[str, float]:
    """Return the metrics of `contraux.clgen.metrics` over all samples, by name, such as `steps_10_frechet/digits_cnn`.

    What they are at the same N as the floor, and the floor itself, is written to `quality.json`.

    Args:
        model: a denoiser with averaged weights.
        process: whose sampler is used.
        train: real images to compare with.
        test: further real ones, for the floor.
        run: folder of the file.
        extractors: factories, see `contraux.clgen.metrics.extractor.ExtractorFactory`.
        data: name of the data.
        count: images to generate, from noise that is the same for each number of steps.
        sampling_steps: of the sampler.
        conditional: whether the denoiser was told classes; each is asked for equally often.
        guidance: with which it samples then.
        seed: of noise and of the metrics' draws.
    """
    from ..metrics.extractor import Reals, made
    from ..metrics.suite import Settings, evaluate_images

    networks, notes = made(extractors, Reals(train, test, data))
    for note in notes:
        warnings.warn(note, stacklevel=2)
    device = next(model.parameters()).device
    noise = fixed_noise(count, train.tensor.shape[1:], seed, device)
    labels = labels_for(model, count, len(train.classes) if conditional else 0, device)
    whole: dict[str, Any] = {}
    for steps in sampling_steps:
        images = sample(model, process, noise, steps=steps, labels=labels, guidance=guidance, seed=seed)
        whole[str(steps)] = evaluate_images(
            train, images.cpu(), networks, labels=labels.cpu() if conditional and labels is not None else None,
            held_out=test, settings=Settings(seed=seed), device=device,
        )  # fmt: skip
    write_json(run / QUALITY, whole)
    return {
        f"steps_{steps}_{name}": value for steps, found in whole.items() for name, value in found["metrics"].items()
    }
