"""What pretraining leaves behind: an encoder with what it needs to know about its inputs, in files without code."""

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..check import number, shape
from ..files import existing, whole_folder, write_json
from .description import build_encoder, describe, is_buildable
from .inputs import shape_of

__all__ = ["PretrainedEncoder", "describe", "load_encoder"]

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
CARD_TEMPLATE = """---
{{ card_data }}
---

An encoder pretrained with contraux; `config.json` says how.

```python
from contraux.core.encoders import load_encoder

encoder = load_encoder("...")  # this repository's name
features = encoder(images)  # uint8, or floats in [0, 1]; the encoder normalises them itself
```
"""
FOLDER = "encoder"  # inside a run folder of `contraux pretrain`


class PretrainedEncoder(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="contraux",
    tags=["contrastive-learning", "self-supervised-learning"],
    model_card_template=CARD_TEMPLATE,
):
    """`(N, *input_shape) -> (N, out_features)`: an encoder behind the normalisation it was trained with.

        features = encoder((x - mean) / std)

    Saved as `model.safetensors` and `config.json`; loading them runs no code but contraux's own encoders. It is in
    evaluation mode once loaded.

    Args:
        encoder: a module with an integer `out_features`.
        input_shape: of one example, (C, H, W) for images or (D,) for vectors.
        mean: one number a channel of an image, counted in [0, 1], or one an entry of a vector.
        std: likewise, > 0.
        description: how the encoder can be built again, see :func:`describe`; None if it cannot.
        metadata: anything worth knowing that JSON can hold, such as method, data and versions.

    Attributes:
        out_features: dimension of the features.

    Raises:
        ValueError: a value breaks its rule.
    """

    def __init__(
        self,
        encoder: nn.Module,
        input_shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        description: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        out = getattr(encoder, "out_features", None)
        if not isinstance(encoder, nn.Module) or not isinstance(out, int):
            raise ValueError(f"an encoder must be a module with an integer `out_features`, got {encoder!r}")
        self.encoder = encoder
        self.out_features = out
        self.input_shape = shape_of("a pretrained encoder", input_shape)
        if len(self.input_shape) not in (1, 3):
            raise ValueError(f"input_shape must be (C, H, W) of images or (D,) of vectors, got {self.input_shape}")
        for name, given in (("description", description), ("metadata", metadata)):
            if given is not None and not isinstance(given, Mapping):
                raise ValueError(f"{name} must be a mapping or None, got {given!r}")
        self.description = None if description is None else dict(description)
        self.metadata = dict(metadata or {})
        self.statistics = {
            "mean": self._per_channel("mean", mean, -math.inf),
            "std": self._per_channel("std", std, 0.0),
        }
        for name, values in self.statistics.items():  # not persistent: the config has them
            view = torch.tensor(values).reshape(-1, *[1] * (len(self.input_shape) - 1))
            self.register_buffer(name, view, persistent=False)

    mean: Tensor
    std: Tensor

    def _per_channel(self, name: str, values: Sequence[float], low: float) -> list[float]:
        if not isinstance(values, Sequence) or len(values) != self.input_shape[0]:
            raise ValueError(
                f"{name} must have one number for each of the {self.input_shape[0]} "
                f"{'channels' if self.is_image else 'entries'} of inputs {self.input_shape}, got {values!r}"
            )
        return [number(name, value, low, above=low == 0.0) for value in values]

    @property
    def is_image(self) -> bool:
        """Whether the inputs are images `(C, H, W)`, not vectors `(D,)`."""
        return len(self.input_shape) == 3

    @property
    def is_described(self) -> bool:
        """Whether the description suffices to build the encoder again."""
        return is_buildable(self.description)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, out_features)` features.

        Args:
            x: `(N, *input_shape)`; images as uint8 in [0, 255] or floats in [0, 1], vectors as floats.

        Raises:
            ValueError: inputs of another shape, or integers that are no image.
        """
        if x.shape[1:] != self.input_shape:
            raise ValueError(f"the encoder reads inputs (N, {str(self.input_shape)[1:-1].rstrip(',')}), got {shape(x)}")
        if not x.is_floating_point():
            if x.dtype != torch.uint8 or not self.is_image:
                raise ValueError(f"inputs must be {'uint8 or ' * self.is_image}floating, got {x.dtype}")
            x = x.to(self.mean.dtype) / 255
        return self.encoder(((x - self.mean) / self.std).to(x.dtype))

    # --- files --------------------------------------------------------------------------------------------------------

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        config: None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write `config.json`, `model.safetensors` and a model card, all or nothing; see huggingface_hub for the rest.

        Args:
            save_directory: a new folder, or one written by this method, which is replaced but for its card.
            push_to_hub: also upload to the Hugging Face Hub.
            repo_id: name there; None takes the folder's.
            model_card_kwargs: for the template of the card.
            config: unused, the mixin's; what `config.json` holds follows from the encoder.
            push_to_hub_kwargs: of `push_to_hub`.

        Returns:
            The address of the commit on the Hub, where there was one.

        Raises:
            ValueError: the folder holds other files, which replacing it would remove.
        """
        folder = Path(save_directory).absolute()
        others = {path.name for path in folder.iterdir()} - {CONFIG, WEIGHTS, CARD} if folder.is_dir() else set()
        if others:
            raise ValueError(
                f"an encoder is saved in a folder of its own, got {folder} with {', '.join(sorted(others))}"
            )
        with whole_folder(folder) as unfinished:
            if (folder / CARD).is_file():
                shutil.copy(folder / CARD, unfinished)
            super().save_pretrained(unfinished, model_card_kwargs=model_card_kwargs)
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)

    def _save_pretrained(self, save_directory: Path) -> None:
        try:
            write_json(save_directory / CONFIG, self.config())
        except TypeError as error:
            raise ValueError(f"description and metadata must be values that JSON can hold: {error}") from error
        # Clones, since safetensors refuses tensors that share memory.
        state = {name: value.detach().cpu().clone().contiguous() for name, value in self.state_dict().items()}
        save_file(state, save_directory / WEIGHTS, metadata={"format": "pt"})

    def config(self) -> dict[str, Any]:
        """Return what `config.json` holds."""
        return {
            "encoder": self.description,
            "input_shape": list(self.input_shape),
            **self.statistics,
            "metadata": self.metadata,
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, encoder: nn.Module | None = None, source: str = CONFIG
    ) -> "PretrainedEncoder":
        """Build an encoder with random weights from what `config.json` holds, which may come from anybody.

        Args:
            config: see :meth:`config`.
            encoder: instead of the one described, whose class then does not matter.
            source: where the config was found, for sentences.

        Raises:
            ValueError: a key is missing or broken, or the description names anything but an encoder of contraux.
        """
        needed = ("encoder", "input_shape", "mean", "std")
        missing = [key for key in needed if not isinstance(config, Mapping) or key not in config]
        if missing:
            raise ValueError(f"{source} must have the keys {', '.join(needed)}, found no {', '.join(missing)}")
        input_shape = config["input_shape"]
        if not isinstance(input_shape, list | tuple):
            raise ValueError(f"input_shape in {source} must be a list of sizes, got {input_shape!r}")
        if encoder is None:
            encoder = build_encoder(config["encoder"], shape_of("a pretrained encoder", input_shape), source)
        return cls(encoder, input_shape, config["mean"], config["std"], config["encoder"], config.get("metadata"))

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        encoder: nn.Module | None = None,
        map_location: str | torch.device = "cpu",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> "PretrainedEncoder":
        """Load a saved encoder, in evaluation mode; no pickle is read, and no code of others runs.

        Args:
            pretrained_model_name_or_path: a folder, or the name of a model on the Hugging Face Hub.
            encoder: the module to fill, needed if it is of a class that is not contraux's.
            map_location: device of the weights.
            revision: branch, tag or commit on the Hub, whose other settings follow likewise.
            token: see huggingface_hub.
            cache_dir: see huggingface_hub.
            local_files_only: see huggingface_hub.
            force_download: see huggingface_hub.

        Raises:
            ValueError: nothing is there, files are broken or missing, the config would run what is not contraux's, or
                the weights do not fit the encoder; the sentence names the two shapes.
        """
        where = Path(pretrained_model_name_or_path)
        folder = existing(where)
        if folder is not None:
            config_file, weights_file = _files(folder)
        else:
            hub = {"revision": revision, "token": token, "cache_dir": cache_dir}
            hub |= {"local_files_only": local_files_only, "force_download": force_download}
            config_file, weights_file = _download(str(pretrained_model_name_or_path), hub)
        model = cls.from_config(_read(config_file), encoder=encoder, source=str(config_file))
        model.to(map_location)
        _fill(model, weights_file, str(map_location))
        return model.eval()


def load_encoder(where: str | Path, *, encoder: nn.Module | None = None) -> PretrainedEncoder:
    """Load what a pretraining left behind.

    Args:
        where: a run folder of `contraux pretrain`, a folder with `config.json` and `model.safetensors`, or the name of
            a model on the Hugging Face Hub.
        encoder: see :meth:`PretrainedEncoder.from_pretrained`.

    Raises:
        ValueError: see :meth:`PretrainedEncoder.from_pretrained`.
    """
    inner = existing(Path(where) / FOLDER)
    return PretrainedEncoder.from_pretrained(where if inner is None else inner, encoder=encoder)


def _files(folder: Path) -> tuple[Path, Path]:
    config, weights = folder / CONFIG, folder / WEIGHTS
    if config.is_file() and weights.is_file():
        return config, weights
    found = sorted(path.name for path in folder.iterdir())
    if config.is_file() and any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in found):
        raise ValueError(_no_safetensors(str(folder)))
    raise ValueError(
        f"an encoder's folder must hold {CONFIG} and {WEIGHTS}, or a pretraining run's {FOLDER}/ with both, "
        f"got {folder} with {', '.join(found[:8]) or 'nothing'}"
    )


def _no_safetensors(where: str) -> str:
    return f"{where} has no {WEIGHTS}; weights in a pickle are not loaded, since they can run code: convert them first"


def _download(name: str, hub: dict[str, Any]) -> tuple[Path, Path]:
    owner = Path(name).parent
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", name) or (owner.name and owner.is_dir()):
        raise ValueError(f"there is no folder {name!r} (a pretraining run, or an encoder with {CONFIG} and {WEIGHTS})")
    files: list[Path] = []
    for file in (CONFIG, WEIGHTS):
        try:
            files.append(Path(hf_hub_download(name, file, **hub)))
        except (OSError, ValueError, EntryNotFoundError) as error:
            there = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
            if there and file == WEIGHTS:
                raise ValueError(_no_safetensors(f"{name!r} on the Hugging Face Hub")) from error
            if there:
                raise ValueError(f"{name!r} on the Hugging Face Hub has no {file}, so it is no encoder") from error
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"there is no folder {name!r}, nor was it found on the Hugging Face Hub: {reason}"
            ) from error
    return files[0], files[1]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error


def _fill(model: nn.Module, path: Path, device: str) -> None:
    try:
        state = load_file(path, device=device)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    own = model.state_dict()
    for kind, names in (("lacks", own.keys() - state.keys()), ("has besides", state.keys() - own.keys())):
        if names:
            first = next(name for name in (*own, *state) if name in names)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{path} {kind} {first}{more}, compared with the encoder that {CONFIG} describes")
    for name, value in own.items():
        if state[name].shape != value.shape:
            raise ValueError(
                f"{name} is {shape(state[name])} in {path}, but {shape(value)} in the encoder that {CONFIG} describes"
            )
    model.load_state_dict(state)
