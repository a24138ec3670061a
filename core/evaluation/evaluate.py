"""Measures of one encoder, or of several arms over the same seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from ..data.protocol import DataSet
from ..paired import Difference
from .features import device_of, features
from .linear import FewLabels
from .neighbours import NearestNeighbours
from .statistics import Figure, paired
from .subject import Features, Found, Measure, Subject, TwoViewsOf


class Arm(NamedTuple):
    """One of the encoders that are compared.

    Attributes:
        encoder: of a seed.
        fixed: it is the same at every seed, so that it encodes the data once.
    """

    encoder: Callable[[int], nn.Module]
    fixed: bool


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        figures: by arm, then by measure.
        notes: what a reader must know beside the numbers.
        embeddings: by arm, the test split's features at the first seed, for a picture.
    """

    figures: Mapping[str, Mapping[str, Figure]]
    notes: Sequence[str]
    embeddings: Mapping[str, Features]

    def differences(self, arm: str, reference: str) -> dict[str, Difference]:
        """Return `arm - reference` of every measure that both have, paired over seeds."""
        one, other = self.figures[arm], self.figures[reference]
        found = {name: paired(figure, other[name]) for name, figure in one.items() if name in other}
        return {name: difference for name, difference in found.items() if difference is not None}


def quick() -> dict[str, Measure]:
    """Return the measures that cost seconds: neighbours, and linear probes of few labels."""
    return {"knn": NearestNeighbours(), "few_labels": FewLabels()}


def evaluate(
    encoder: nn.Module,
    train: DataSet,
    test: DataSet,
    *,
    measures: Mapping[str, Measure] | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    views: TwoViewsOf | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 256,
    workers: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return what each measure finds of one encoder: mean, sd, n and values by seed, accuracies in percent.

    The encoder is left as it is: weights, statistics, modes, gradients.

    Args:
        encoder: takes inputs as the data have them and returns `(N, D)`.
        train: labelled examples that probes learn from.
        test: examples that they are asked about.
        measures: by name; None takes `quick()`.
        seeds: of what measures draw; a measure that draws nothing is taken once.
        views: two augmented views, for `alignment_of_views`.
        device: where the encoder runs and then stays; None leaves it where it is.
        batch_size: of passes through the encoder.
        workers: processes that read the data.

    Raises:
        ValueError: no labels where a measure needs them, too few examples of a class, or features that are not finite.
    """
    found = compare(
        {"encoder": Arm(lambda _: encoder, True)}, train, test, measures=quick() if measures is None else measures,
        seeds=seeds, views=views, device=device, batch_size=batch_size, workers=workers,
    )  # fmt: skip
    return {name: figure.as_values() for name, figure in found.figures["encoder"].items()}


def compare(
    arms: Mapping[str, Arm],
    train: DataSet,
    test: DataSet,
    *,
    measures: Mapping[str, Measure],
    seeds: Sequence[int],
    views: TwoViewsOf | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 256,
    workers: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Take the measures of every arm, seed by seed, so that all arms have the same draws.

    Args:
        arms: by name.
        train: see `evaluate`.
        test: likewise.
        measures: by name.
        seeds: at least one, each once.
        views: see `evaluate`.
        device: likewise.
        batch_size: likewise.
        workers: likewise.
        tell: called before each of the `steps(...)` with what comes.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be at least one, each once, got {list(seeds)}")
    values: dict[str, dict[str, dict[int, float]]] = {arm: {} for arm in arms}
    half_widths: dict[str, dict[str, dict[int, float]]] = {arm: {} for arm in arms}
    fixed: dict[str, set[str]] = {arm: set() for arm in arms}
    notes: dict[str, dict[str, None]] = {}  # which arms each is about, in order
    embeddings: dict[str, Features] = {}
    kept: dict[str, Subject] = {}
    for seed in seeds:
        for name, arm in arms.items():
            subject = kept.get(name)
            if subject is None:
                tell(f"{name}, seed {seed}: features")
                encoder = arm.encoder(seed)
                subject = _subject(encoder, train, test, views, device, batch_size, workers)
                embeddings.setdefault(name, subject.test)
                if arm.fixed:
                    kept[name] = subject
            possible, left_out = usable(measures, subject)
            for note in left_out:
                notes.setdefault(note, {})[name] = None
            for title, measure in possible.items():
                once = arm.fixed and not measure.seeded
                if once and seed != seeds[0]:
                    continue
                tell(f"{name}, seed {seed}: {title}")
                found = measure(subject, seed)
                _add(found, seed, values[name], half_widths[name])
                for note in found.notes:
                    notes.setdefault(note, {})[name] = None
                if once:
                    fixed[name] |= found.values.keys()
    figures = {
        arm: {
            measure: Figure(by_seed, measure in fixed[arm], half_widths[arm].get(measure, {}))
            for measure, by_seed in own.items()
        }
        for arm, own in values.items()
    }
    said = [note if len(about) == len(arms) else f"{note} ({'; '.join(about)})" for note, about in notes.items()]
    return Comparison(figures, said, embeddings)


def steps(arms: Mapping[str, Arm], measures: Mapping[str, Measure], seeds: Sequence[int]) -> int:
    """Return how often `compare` tells what comes, if every measure can be taken."""
    return sum(
        (1 if arm.fixed else len(seeds))
        + sum(1 if arm.fixed and not measure.seeded else len(seeds) for measure in measures.values())
        for arm in arms.values()
    )


def usable(measures: Mapping[str, Measure], subject: Subject) -> tuple[dict[str, Measure], list[str]]:
    """Return the measures that the data's labels allow, and a sentence on those that they do not.

    Raises:
        ValueError: there are measures that need labels, and a split has none.
    """
    needy = [title for title, measure in measures.items() if measure.labels != "none"]
    for split, own in (("training", subject.train), ("test", subject.test)):
        if needy and not len(own.known().labels):
            raise ValueError(
                f"{', '.join(needy)} need labels, and the {split} split has none: give other data (of a recording, "
                f"data.label=ram), or leave them out "
                f"({' '.join(f'measures.{title}=null' for title in needy)})"
            )
    if subject.train.labels.ndim == 1:
        return dict(measures), []
    possible = {title: measure for title, measure in measures.items() if measure.labels != "class"}
    left_out = [title for title in measures if title not in possible]
    several = f"need one label an example, and the data have {subject.train.labels.shape[1]}"
    return possible, [f"left out, for they {several}: {', '.join(left_out)}"] if left_out else []


def _subject(
    encoder: nn.Module,
    train: DataSet,
    test: DataSet,
    views: TwoViewsOf | None,
    device: torch.device | str | None,
    batch_size: int,
    workers: int,
) -> Subject:
    where = device_of(encoder) if device is None else device
    made = [features(encoder, split, batch_size, where, workers) for split in (train, test)]
    return Subject(encoder, made[0], made[1], train, test, views, where, batch_size, workers)


def _add(
    found: Found, seed: int, values: dict[str, dict[int, float]], half_widths: dict[str, dict[int, float]]
) -> None:
    for name, value in found.values.items():
        values.setdefault(name, {})[seed] = value
    for name, width in found.half_widths.items():
        half_widths.setdefault(name, {})[seed] = width
