"""Which examples are labelled, where only few are. Shape legend: N examples, S chosen ones."""

import re
from collections.abc import Sequence

import numpy as np

from ..check import number, whole

Shots = int | str
"""Labels of each class: a number, or `1%` of the class."""


def draw_labels(
    labels_N: np.ndarray, shots: Shots, seed: int | Sequence[int], classes: Sequence[str] = ()
) -> np.ndarray:
    """Return the indices `(S,)` of examples drawn without replacement, the same number (or share) of each class.

    With the same seed, a draw of fewer labels is part of a draw of more.

    Args:
        labels_N: classes, all known.
        shots: of each class; a share takes the nearest whole number, at least one.
        seed: of the draw.
        classes: names of the classes, for sentences.

    Raises:
        ValueError: a class has fewer examples than it should give; the sentence names it.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for name in np.unique(labels_N):
        members = rng.permutation(np.flatnonzero(labels_N == name))
        wanted = _count(shots, len(members))
        if wanted > len(members):
            raise ValueError(
                f"{shots} labels of each class need as many examples, and class {title(name, classes)} has "
                f"{len(members)}"
            )
        chosen.append(members[:wanted])
    return np.concatenate(chosen)


def title(label: int, classes: Sequence[str]) -> str:
    """Return how a sentence calls a class."""
    return repr(classes[label]) if 0 <= label < len(classes) else str(label)


def shots_name(shots: Shots) -> str:
    """Return `5_shot` for 5 and `1_percent` for `1%`.

    Raises:
        ValueError: neither a whole number >= 1 nor a share above 0 % and up to 100 %.
    """
    if isinstance(shots, str):
        return f"{_percent(shots):g}_percent"
    return f"{whole('shots', shots, 1)}_shot"


def _count(shots: Shots, members: int) -> int:
    if isinstance(shots, str):
        return max(1, round(_percent(shots) / 100 * members))
    return shots


def _percent(shots: str) -> float:
    match = re.fullmatch(r"\s*([0-9.]+)\s*%\s*", shots)
    if match is None:
        raise ValueError(f"shots must be a whole number >= 1 or a share such as 1%, got {shots!r}")
    return number("shots in percent", float(match[1]), 0.0, 100.0, above=True)
