"""What features look like without labels. Shape legend: N rows, D features, B rows of a batch."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..check import shape, whole
from ..losses.alignment_uniformity import alignment, uniformity
from .features import evaluating
from .subject import Found, Subject


def effective_rank(features_ND: Tensor, *, centred: bool = True) -> float:
    """Return the effective rank of the features, in [1, min(N, D)] (Roy and Vetterli 2007, eq. 2 and 3).

        exp(-sum_k p_k log p_k),  p_k = s_k / sum_j s_j  with s the singular values

    It is the number of directions the features would have if all were used alike. Centred, a mean that all rows share
    is no direction; not centred it is RankMe (Garrido et al. 2023, eq. 1 and 2, https://arxiv.org/abs/2210.02885, whose
    epsilon of 1e-7 keeps log finite; here 0 log 0 = 0). Features without any spread have rank 0.

    Args:
        features_ND: `(N, D)`, N >= 1.
        centred: subtract the mean row first.

    Raises:
        ValueError: the features are not floating `(N, D)`.
    """
    if features_ND.ndim != 2 or not len(features_ND) or not features_ND.is_floating_point():
        raise ValueError(f"features must be floating (N, D) with N >= 1, got {shape(features_ND)} {features_ND.dtype}")
    rows_ND = features_ND.double()
    largest = float(rows_ND.abs().max())
    if centred:
        rows_ND = rows_ND - rows_ND.mean(0)
    s_K = torch.linalg.svdvals(rows_ND)
    s_K = s_K[s_K > 1e-7 * largest]  # float32 features are no more exact than this
    if not len(s_K):
        return 0.0
    p_K = s_K / s_K.sum()
    return float((-(p_K * p_K.log()).sum()).exp())


def same_class_pairs(labels_N: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return indices of pairs of different examples of one class: each example once on either side.

    Within a class, in random order, each is paired with the next; classes with one example have no pair.
    """
    rng = np.random.default_rng(seed)
    first, second = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for name in np.unique(labels_N):
        members = rng.permutation(np.flatnonzero(labels_N == name))
        if len(members) > 1:
            first.append(members)
            second.append(np.roll(members, 1))
    return np.concatenate(first), np.concatenate(second)


@dataclass(frozen=True)
class Geometry:
    """Alignment and uniformity (Wang and Isola 2020), effective rank and RankMe of the test split's features.

    Alignment is the mean squared distance of the normalised features of a pair, in [0, 4], smaller is closer: of two
    augmented views of an example, as in the paper, where the views of pretraining are known; and of two examples of a
    class, where there are classes. Uniformity is in [-8, 0], smaller is more spread.

    Args:
        rows: at most so many test examples, evenly spaced, >= 2: uniformity looks at all pairs of them.
    """

    rows: int = 4096
    seeded: ClassVar[bool] = False
    labels: ClassVar[str] = "none"

    def __post_init__(self) -> None:
        whole("rows", self.rows, 2)

    def __call__(self, subject: Subject, seed: int) -> Found:
        """Return `alignment_of_views`, `alignment_of_classes`, `uniformity`, `effective_rank` and `rankme`."""
        total = len(subject.test.rows)
        if total < 2:
            raise ValueError(f"uniformity needs at least 2 test examples, got {total}")
        chosen = evenly_spaced(total, self.rows)
        features_ND = torch.from_numpy(subject.test.rows[chosen])
        values: dict[str, float] = {}
        if subject.views is not None:
            values["alignment_of_views"] = self._alignment_of_views(subject, chosen)
        labels_N = subject.test.labels[chosen]
        if labels_N.ndim == 1 and (labels_N >= 0).any():
            first, second = same_class_pairs(np.where(labels_N < 0, -1 - np.arange(len(labels_N)), labels_N))
            if len(first):
                values["alignment_of_classes"] = float(alignment(features_ND[first], features_ND[second]))
        values["uniformity"] = float(uniformity(features_ND))
        values["effective_rank"] = effective_rank(features_ND)
        values["rankme"] = effective_rank(features_ND, centred=False)
        notes = [] if len(chosen) == total else [f"geometry: {len(chosen)} of {total} test examples, evenly spaced"]
        return Found(values, notes=notes)

    def _alignment_of_views(self, subject: Subject, chosen: np.ndarray) -> float:
        """Views come normalised, so it is the network inside that sees them."""
        network = getattr(subject.encoder, "encoder", subject.encoder)
        generator = torch.Generator(subject.device).manual_seed(0)
        assert subject.views is not None
        sums, examples = 0.0, 0
        with evaluating(network), torch.no_grad():
            for start in range(0, len(chosen), subject.batch_size):
                batch = subject.test_data.__getitems__(chosen[start : start + subject.batch_size].tolist())
                first, second = subject.views(batch.inputs.to(subject.device), generator)
                sums += len(first) * float(alignment(network(first).float(), network(second).float()))
                examples += len(first)
        return sums / examples


def evenly_spaced(total: int, at_most: int) -> np.ndarray:
    """Return the indices of all of `total`, or of `at_most` at equal distances."""
    return np.unique(np.linspace(0, total - 1, min(total, at_most)).round().astype(np.int64))
