"""What a run leaves: a folder from which diffusers samples by itself."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ...core.files import whole_folder
from ..diffusion.labels import takes_labels
from ..diffusion.process import Process
from .identity import identity_autoencoder

FOLDER = "pipeline"


def pipeline_of(model: nn.Module, process: Process) -> Any:
    """Return the pipeline of diffusers that samples from a denoiser.

    * `DDIMPipeline`, or `DDPMPipeline` for the samplers of DDPM and of flows, for a U-Net that takes no labels;
    * `DiTPipeline` for every other: `pipeline(class_labels=[3, 7], guidance_scale=2.0)`. It works on the latents of an
      autoencoder, which is one that changes nothing here. Its transformer may be a U-Net, which is called the same way;
      diffusers then says that it expected another class, and goes on. A denoiser that was never told classes knows only
      class 1000: `pipeline(class_labels=[1000], guidance_scale=1.0)`.

    Args:
        model: in evaluation mode.
        process: whose sampler it gets.
    """
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DiTPipeline

    scheduler = process.sampler()
    if takes_labels(model):
        channels = int(getattr(model, "config").in_channels)  # noqa: B009
        return DiTPipeline(transformer=model, vae=identity_autoencoder(channels), scheduler=scheduler)
    kind = DDIMPipeline if isinstance(scheduler, DDIMScheduler) else DDPMPipeline
    return kind(unet=model, scheduler=scheduler)


def save_pipeline(model: nn.Module, process: Process, folder: Path, classes: Sequence[str] = ()) -> None:
    """Write the pipeline of a denoiser; whoever is killed meanwhile leaves none.

    Args:
        model: in evaluation mode.
        process: whose sampler it gets.
        folder: the place.
        classes: names for `DiTPipeline.get_label_ids`.
    """
    with whole_folder(folder) as unfinished:
        pipeline_of(model, process).save_pretrained(unfinished)
        index = json.loads((unfinished / "model_index.json").read_text(encoding="utf-8"))
        if index["_class_name"] == "DiTPipeline":
            names = {str(label): name.replace(",", " ") for label, name in enumerate(classes)}
            _write(unfinished / "model_index.json", {**index, **({"id2label": names} if names else {})})
            place = unfinished / "vae" / "config.json"
            config = json.loads(place.read_text(encoding="utf-8"))
            config.pop("block_out_channels", None)  # written by diffusers, which then warns of it
            _write(place, config)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
