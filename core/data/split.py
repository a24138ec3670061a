"""Which examples are for training and which for testing, by a seed. Shape legend: N examples, E episodes."""

import numpy as np

from ..check import choice, number, whole

SPLITS = ("train", "test")


def part(split: str, labels: np.ndarray, test_share: float, seed: int) -> np.ndarray:
    """Return the sorted indices of the examples of one split.

    Of every class, `test_share` of the examples are for testing, rounded up or down so that the whole share is right
    within one example; which ones, the seed decides. A class with one example is for training.

    Args:
        split: `train` or `test`.
        labels: `(N,)` integers, whatever tells the classes apart; all equal where nothing is known.
        test_share: in [0, 1); 0 leaves nothing for testing.
        seed: integer >= 0.

    Raises:
        ValueError: a value breaks its rule, or a split would be empty.
    """
    choice("split", split, SPLITS)
    share = number("test_share", test_share, 0, 1, below=True)
    random = np.random.default_rng([whole("seed", seed), len(labels)])
    shuffled = random.permutation(len(labels))
    _, kinds, counts = np.unique(labels, return_inverse=True, return_counts=True)
    alone = counts[kinds] == 1 if len(counts) > 1 else np.zeros(len(labels), dtype=bool)
    ordered = shuffled[np.argsort(kinds[shuffled], kind="stable")]  # class by class, shuffled within each
    ordered = ordered[~alone[ordered]]
    reached = np.floor(np.arange(len(ordered) + 1) * share + 0.5)
    testing = np.zeros(len(labels), dtype=bool)
    testing[ordered[np.diff(reached) > 0]] = True
    return _nonempty(split, np.flatnonzero(testing if split == "test" else ~testing), share, len(labels), "examples")


def episodes_part(split: str, episodes: int, test_share: float, seed: int) -> np.ndarray:
    """Return the sorted numbers in [0, episodes) of one split, so that no episode is in both.

    With a share > 0 at least one episode is for testing and one for training.

    Raises:
        ValueError: a value breaks its rule, or there are too few episodes.
    """
    choice("split", split, SPLITS)
    share = number("test_share", test_share, 0, 1, below=True)
    count = 0 if share == 0 else min(max(round(share * episodes), 1), episodes - 1)
    shuffled = np.random.default_rng([whole("seed", seed), episodes]).permutation(episodes)
    found = np.sort(shuffled[:count] if split == "test" else shuffled[count:])
    if share > 0 and count == 0:
        raise ValueError(
            f"a split by episodes needs at least 2 episodes, got {episodes}: record more steps, or train on all of it "
            "with test_share=0"
        )
    return _nonempty(split, found, share, episodes, "episodes")


def _nonempty(split: str, found: np.ndarray, share: float, total: int, what: str) -> np.ndarray:
    if len(found) == 0:
        raise ValueError(f"the {split} split must not be empty, got test_share={share:g} of {total} {what}")
    return found
