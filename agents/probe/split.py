"""Which frames teach a probe, which choose its strength, and which judge it. Shape legend: N frames, V variables."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...core.check import number
from ...core.evaluation.linear import entropy
from .variables import Variable


class Split(NamedTuple):
    """Indices of frames, without an episode in common.

    Attributes:
        train: fits the probes.
        validation: chooses their strength; none of its frames is among the training frames.
        test: judges them; none of its frames is among the others.
        duplicates: how many frames of validation and test were left out for that.
        episodes: how many episodes each of the three has.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    duplicates: tuple[int, int]
    episodes: tuple[int, int, int]


def split(
    episode_N: np.ndarray, frame: Callable[[int], bytes], *, validation: float = 0.1, test: float = 0.2, seed: int = 0
) -> Split:
    """Split by episode, then drop what was seen before.

    Episodes are taken in a random order: for the test until they have its share of the frames, then for validation, at
    least one for each; the others are for training. A frame of validation that equals one of training is dropped, and
    one of the test that equals one of either.

    Args:
        episode_N: the episode of each frame.
        frame: the bytes of the frame with an index.
        validation: share of the frames, in (0, 1).
        test: likewise.
        seed: of the order.

    Raises:
        ValueError: shares leave nothing for training, there are fewer than three episodes, or nothing is left of a part
            without its duplicates.
    """
    for name, share in (("validation", validation), ("test", test)):
        number(f"shares.{name}", share, 0.0, 1.0, above=True, below=True)
    number("shares.validation + shares.test", validation + test, 0.0, 1.0, below=True)
    episodes, sizes = np.unique(episode_N, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(episodes))
    taken_test = _fill(sizes[order], test * len(episode_N))
    taken_validation = _fill(sizes[order][taken_test:], validation * len(episode_N))
    ends = (taken_test, taken_test + taken_validation)
    if len(episodes) <= ends[1]:
        raise ValueError(
            f"a split by episode needs an episode for each of training, validation and test, got {len(episodes)} "
            f"episodes in {len(episode_N)} frames: more env.n_envs or frames give more"
        )
    parts = [np.flatnonzero(np.isin(episode_N, episodes[own])) for own in np.split(order, ends)]
    test_N, validation_N, train_N = parts
    seen = {frame(int(index)) for index in train_N}
    kept_validation = _unseen(validation_N, frame, seen)
    seen |= {frame(int(index)) for index in validation_N}
    kept_test = _unseen(test_N, frame, seen)
    for name, kept, whole in (("validation", kept_validation, validation_N), ("test", kept_test, test_N)):
        if not len(kept):
            raise ValueError(
                f"all {len(whole)} frames for {name} are among the others too, which leaves nothing to measure on: "
                "record more frames, or let an agent play that sees more of the game"
            )
    return Split(
        train_N,
        kept_validation,
        kept_test,
        (len(validation_N) - len(kept_validation), len(test_N) - len(kept_test)),
        (len(episodes) - ends[1], taken_validation, taken_test),
    )


def _fill(sizes: np.ndarray, wanted: float) -> int:
    """Return how many of the first episodes have the wanted number of frames, at least 1."""
    return int(np.searchsorted(np.cumsum(sizes), wanted)) + 1


def _unseen(indices: np.ndarray, frame: Callable[[int], bytes], seen: set[bytes]) -> np.ndarray:
    return np.array([index for index in indices if frame(int(index)) not in seen], dtype=np.int64)


class Kept(NamedTuple):
    """Variables worth a probe.

    Attributes:
        columns: of the labels.
        dropped: the others, by name, with what their training labels have of entropy, in nats.
        constant: those that vary in training, but not in the test: nothing to explain there.
    """

    columns: list[int]
    dropped: dict[str, float]
    constant: list[str]


def varying(variables: list[Variable], train_NV: np.ndarray, test_MV: np.ndarray, min_entropy: float) -> Kept:
    """Choose the variables that vary enough.

    Entropy is that of the frequencies of the training labels, in nats and not divided by that of uniform ones, as in
    AtariARI's code; its threshold is 0.6. Guessing the frequent value of what hardly varies would look like knowledge.
    Numbers that are not whole have no frequencies: they only must vary at all.

    Args:
        variables: what the columns are.
        train_NV: labels of training.
        test_MV: labels of the test.
        min_entropy: >= 0, in nats.

    Raises:
        ValueError: no variable is left.
    """
    number("min_entropy", min_entropy, 0.0)
    columns, dropped, constant = [], {}, []
    for column, variable in enumerate(variables):
        labels_N = train_NV[:, column]
        nats = entropy(labels_N)
        if nats < max(min_entropy, 1e-12):
            dropped[variable.name] = nats
        elif (test_MV[:, column] == test_MV[0, column]).all():
            constant.append(variable.name)
        else:
            columns.append(column)
    if not columns:
        raise ValueError(
            f"no variable has an entropy of at least min_entropy={min_entropy:g} nats and varies in the test frames: "
            f"{', '.join([*dropped, *constant])}"
        )
    return Kept(columns, dropped, constant)
