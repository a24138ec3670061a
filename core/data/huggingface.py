"""Image data sets of Hugging Face, by name or from a local folder. Shape legend: N examples."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..check import choice, whole
from .pictures import Pictures
from .split import SPLITS, part
from .statistics import given

OLDEST = 4  # from this version on, `datasets` runs no code of a data set's author


def huggingface(
    split: str,
    *,
    name: str,
    config: str | None = None,
    revision: str | None = None,
    train_split: str = "train",
    test_split: str | None = "test",
    image_column: str | None = None,
    label_column: str | None = None,
    size: int = 224,
    channels: int = 3,
    test_share: float = 0.2,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Pictures:
    """Return a data set that `datasets` downloads or finds, its images decoded when they are asked for.

    It stays on disk, memory-mapped. No code of a data set's author is run.

    Args:
        split: `train` or `test`.
        name: on the Hub, or a local folder: of images, of Parquet files, or what `save_to_disk` wrote.
        config: which of its configurations; None: its default.
        revision: which version on the Hub; None: the newest.
        train_split: its split to train on.
        test_split: its split to test on; None: a seed splits `train_split`, class by class.
        image_column: None: the first column of images.
        label_column: None: the first column of classes, if there is one. Integers and strings will do as well.
        size: side of the squares: shorter side resized, centre cut out.
        channels: 3 for RGB, 1 for grey.
        test_share: of each class, in [0, 1); without effect with a `test_split`.
        seed: which images are for testing, integer >= 0; likewise.
        mean: one number a channel, images counted in [0, 1]; None: computed from training images.
        std: likewise, > 0.

    Raises:
        ValueError: `datasets` is missing or too old, the data set cannot be had, or has no such split or column.
    """
    choice("split", split, SPLITS)
    known = given(mean, std, whole("channels", channels, 1))
    found = _load(name, config, revision)
    image, label = _columns(found[_known_split(found, train_split, name)], image_column, label_column)
    sources = {"train": found[train_split]}
    if test_split is not None:
        sources["test"] = found[_known_split(found, test_split, name)]
    labels, classes = _labels(sources, label)

    def pictures(which: str, train: Pictures | None = None) -> Pictures:
        source = sources[which if test_split is not None else "train"]
        own = labels[which if test_split is not None else "train"]
        if test_split is None:
            rows = part(which, own.numpy(), test_share, seed)
            source, own = source.select(rows), own[rows]
        source = source.select_columns([image])
        images = Images(source.cast_column(image, type(source.features[image])(decode=False)), image, f"{name} {which}")
        return Pictures(images.file, images.name, own, classes, size=size, channels=channels, known=known, train=train)

    train = pictures("train")
    return train if split == "train" else pictures("test", train)


class Images:
    """The encoded images of one column.

    Args:
        source: the `datasets.Dataset`, which decodes none of them.
        column: which one.
        called: how a sentence calls the data set.
    """

    def __init__(self, source: Any, column: str, called: str) -> None:
        self.source, self.column, self.called = source, column, called

    def file(self, index: int) -> Path | BinaryIO:
        """Return image `index` as a path or an open file."""
        found = self.source[index][self.column]
        if found is None:
            raise ValueError("it is empty")
        return Path(found["path"]) if found["bytes"] is None else io.BytesIO(found["bytes"])

    def name(self, index: int) -> str:
        """Return it as a sentence has it."""
        return f"image {index} of {self.called}"


def _load(name: str, config: str | None, revision: str | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            "data=huggingface needs datasets, which is not installed: pip install 'contraux[data]'"
        ) from error
    if int(datasets.__version__.split(".")[0]) < OLDEST:
        raise ValueError(
            f"datasets must be version {OLDEST} or newer, got {datasets.__version__}: pip install -U datasets"
        )
    try:
        if any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(name)
        else:
            found = datasets.load_dataset(name, config, revision=revision)
    except Exception as error:  # of many types, from its own and the network's
        raise ValueError(f"the data set {name!r} cannot be had: {type(error).__name__}: {error}") from error
    return found if isinstance(found, dict) else {"train": found}


def _known_split(found: Any, split: str, name: str) -> str:
    if split not in found:
        raise ValueError(
            f"train_split and test_split must be among the splits of {name!r}, which are {', '.join(found)}, got "
            f"{split!r} (test_split=null: a seed splits the training images)"
        )
    return split


def _columns(source: Any, image: str | None, label: str | None) -> tuple[str, str | None]:
    """Return the columns of images and of labels, looked for where they are not given."""
    kinds = {column: type(feature).__name__ for column, feature in source.features.items()}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    if not images or image not in (None, *images):
        raise ValueError(f"image_column must be a column of images, there are {_listed(kinds)}, got {image!r}")
    if label not in (None, *kinds):
        raise ValueError(f"label_column must be a column, there are {_listed(kinds)}, got {label!r}")
    classes = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    return image or images[0], label or next(iter(classes), None)


def _listed(kinds: dict[str, str]) -> str:
    return ", ".join(f"{column} ({kind})" for column, kind in kinds.items())


def _labels(sources: dict[str, Any], column: str | None) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return the labels of each split, and the names of the classes."""
    if column is None:
        return {which: torch.full((len(source),), -1) for which, source in sources.items()}, ()
    values = {which: source[column][:] for which, source in sources.items()}
    names = getattr(sources["train"].features[column], "names", None)
    if names is None:
        distinct = {value for own in values.values() for value in own if value is not None}
        strange = next((value for value in distinct if not isinstance(value, int | str)), None)
        if strange is not None:
            raise ValueError(f"label_column must hold integers or strings, got {strange!r} in {column!r}")
        names = sorted(value for value in distinct if isinstance(value, str) or value >= 0)
        number = {value: i for i, value in enumerate(names)}
    else:
        number = {i: i for i in range(len(names))}
    labels = {which: torch.tensor([number.get(value, -1) for value in own]) for which, own in values.items()}
    return labels, tuple(str(name) for name in names)
