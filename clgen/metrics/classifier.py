"""A small classifier of the data as extractor. Shape legend: N images, C channels, H x W size."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...core.encoders import SmallCNN
from ...core.encoders.inputs import image_shape
from ...core.evaluation.job import device_named
from ...core.files import write_json
from ..images import Images
from .extractor import Extracted, NoLabels, Reals, suited
from .fit import fit

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class Classifier(nn.Module):
    """`SmallCNN` and a linear layer: features `(N, 4 width)` are what the linear layer reads, logits what it makes.

    Args:
        input_shape: `(C, H, W)`, H = W; images of another size are resized.
        classes: their names, at least 2.
        name: of the extractor.
        width: see `SmallCNN`.
        metadata: anything worth knowing that JSON can hold, such as the accuracy on held-out images.

    Raises:
        ValueError: a value breaks its rule.
    """

    rescaled = True

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: tuple[str, ...],
        name: str,
        width: int = 16,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(classes) < 2:
            raise ValueError(f"a classifier must tell at least 2 classes apart, got {len(classes)}")
        self.input_shape = image_shape("Classifier", input_shape, 4)
        self.classes, self.name, self.width = tuple(classes), name, width
        self.metadata = dict(metadata or {})
        self.encoder = SmallCNN(input_shape, width)
        self.head = nn.Linear(self.encoder.out_features, len(classes))

    def forward(self, images: Tensor) -> Extracted:
        """Return features and logits of images, uint8 or floats in [-1, 1]."""
        features = self.encoder(suited(images, self.input_shape, self.name))
        return Extracted(features, self.head(features))

    def save(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` into a new folder, all or nothing.

        Several processes may do so at once with the same result: the first that is done counts.
        """
        folder = Path(folder)
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        config = {"name": self.name, "input_shape": list(self.input_shape), "classes": list(self.classes)}
        write_json(unfinished / CONFIG, {**config, "width": self.width, "metadata": self.metadata})
        save_file({name: value.cpu().contiguous() for name, value in self.state_dict().items()}, unfinished / WEIGHTS)
        try:
            unfinished.rename(folder)
        except OSError:
            shutil.rmtree(unfinished)
            if not folder.is_dir():
                raise

    @classmethod
    def load(cls, folder: str | Path) -> "Classifier":
        """Read what :meth:`save` wrote; no pickle is read and no code of others runs.

        Raises:
            ValueError: the folder holds no classifier, or a broken one.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            made = cls(
                tuple(config["input_shape"]), tuple(config["classes"]), config["name"], config["width"],
                config["metadata"],
            )  # fmt: skip
            made.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"an extractor's folder must hold {CONFIG} and {WEIGHTS} of contraux extractor, and {folder} does not: "
                f"{' '.join(str(error).split())}"
            ) from error
        return made.eval().requires_grad_(False)


def classifier(
    reals: Reals,
    *,
    folder: str | Path | None = None,
    width: int = 16,
    steps: int = 800,
    batch_size: int = 64,
    learning_rate: float = 5e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
    device: str = "auto",
) -> Classifier:
    """Return the classifier in a folder; where there is none yet, train it and save it there.

    The same seed gives the same weights on the same machine and number of threads, on a CPU.

    Args:
        reals: the data; it is trained on `train` alone, and its accuracy on `test` is kept as `held_out`.
        folder: where it is or shall be; None: it is trained anew each time.
        width: a quarter of the number of features, a multiple of 8.
        steps: of the optimizer; 800 are 40 passes over the digits.
        batch_size: see :func:`fit`.
        learning_rate: likewise.
        weight_decay: likewise.
        seed: of weights, order and shifts.
        device: where it is trained: cpu, cuda, or auto; it is on the CPU afterwards.

    Raises:
        NoLabels: the data have none.
        ValueError: a number out of range; no such device; or the folder holds no classifier, or that of other data.
    """
    train, test, name = reals
    fingerprint = _fingerprint(train)
    if folder is not None and Path(folder).exists():
        return _checked(Classifier.load(folder), reals, fingerprint, folder)
    if len(train.classes) < 2 or not (train.labels >= 0).any():
        raise NoLabels(f"no classifier of {name}: its images have no labels to train one with")
    made, accuracy = fit(
        lambda: Classifier(train.tensor.shape[1:], train.classes, f"{name}_cnn", width),
        train, test, steps=steps, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay,
        seed=seed, device=device_named(device),
    )  # fmt: skip
    made.metadata = {
        "data": name, "images": len(train.labels), "labels": fingerprint, "held_out": accuracy, "seed": seed,
        "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "weight_decay": weight_decay,
    }  # fmt: skip
    if folder is not None:
        made.save(folder)
    return made


def check_kept(factories: Sequence[Any], reals: Reals) -> None:
    """Read the classifiers that are kept already, so that a wrong one is refused before something else is trained.

    Args:
        factories: of extractors; those that are no `partial` of :func:`classifier` with a folder are left alone.
        reals: the data.

    Raises:
        ValueError: see :func:`classifier`.
    """
    for factory in factories:
        if isinstance(factory, partial) and factory.func is classifier:
            folder = factory.keywords.get("folder")
            if folder is not None and Path(folder).exists():
                factory(reals)


def _checked(made: Classifier, reals: Reals, fingerprint: str, folder: str | Path) -> Classifier:
    wanted, classes = tuple(reals.train.tensor.shape[1:]), reals.train.classes
    if made.input_shape != wanted or made.classes != classes or made.metadata.get("labels") != fingerprint:
        raise ValueError(
            f"the extractor in {folder} was trained on other images than these, {made.metadata.get('data')} "
            f"{made.input_shape} against {reals.name} {wanted}, in another split or order, or of other classes: "
            "name another folder"
        )
    return made


def _fingerprint(train: Images) -> str:
    """Return what tells one training split from another: a hash of its labels in order, which no rounding changes."""
    return hashlib.sha256(train.labels.numpy().astype("<i8").tobytes()).hexdigest()[:16]
