"""The handwritten digits that come with scikit-learn: the data set that needs no network."""

import numpy as np
import torch

from .memory import InMemory, encoded
from .split import part
from .statistics import statistics

SCALE = 255 / 16  # of its 17 grey levels


def digits(split: str, *, test_share: float = 0.3, seed: int = 0) -> InMemory:
    """Return 8 x 8 grey images of ten digits, uint8 `(1, 8, 8)`, of 1,797 in all.

    They are the test set of the Optical Recognition of Handwritten Digits data (Alpaydin and Kaynak 1998), whose levels
    0 to 16 are scaled to 0 to 255.

    Args:
        split: `train` or `test`.
        test_share: of each class, in [0, 1).
        seed: which images are for testing, integer >= 0.

    Raises:
        ValueError: a value breaks its rule.
    """
    from sklearn.datasets import load_digits  # here: it takes long to import

    everything = load_digits()
    images = torch.from_numpy(np.rint(everything.images * SCALE).astype(np.uint8))[:, None]
    labels, classes = encoded(everything.target)
    train = part("train", everything.target, test_share, seed)
    rows = train if split == "train" else part(split, everything.target, test_share, seed)
    return InMemory(images[rows], labels[rows], classes, statistics(images[train].__getitem__, len(train)))
