"""Objectives without negatives: heads and a loss of paired rows as one module.

Shape legend: N queries, M keys, D feature dimension.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .check import shape
from .kernels.entry import name_of, takes
from .losses import negative_cosine
from .pairs import Outcome, Pairs
from .projected import HeadFactory, Projected, own


class NegativeFree(Projected):
    """Each query is compared with its own key alone: BYOL, SimSiam, VICReg, Barlow Twins.

        z_q = prediction(projection(query))    z_k = projection(key), or its momentum copy without gradient
        loss(z_q, z_k of each query's positive)

    BYOL is a prediction, a momentum (the paper's 0.996) and `negative_cosine`; SimSiam the same with momentum 0, whose
    copy is the projection itself without gradient; VICReg and Barlow Twins have neither.

    Args:
        dim: as for `Contrastive`, and so the next three.
        projection: see there.
        prediction: see there.
        momentum: see there.
        loss: `(query (N, D), key (N, D)) -> scalar`. A module is copied.

    Raises:
        ValueError: as for `Contrastive`, or a loss of a similarity matrix.
    """

    def __init__(
        self,
        dim: int,
        *,
        projection: HeadFactory | None = None,
        prediction: HeadFactory | None = None,
        momentum: float | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] = negative_cosine,
    ) -> None:
        super().__init__(dim, projection, prediction, momentum)
        self.loss = own(loss)
        if takes(self.loss, "similarity"):
            raise ValueError(
                f"NegativeFree needs a loss of paired rows, got {name_of(self.loss)}, which takes a similarity matrix; "
                "Contrastive takes such a loss"
            )

    def forward(self, pairs: Pairs) -> Outcome:
        """Return the loss; `positive_similarity`, the mean cosine of the pairs; and `spread`.

        `spread` is the standard deviation of the unit queries over the batch, averaged over dimensions, times sqrt(D):
        1 where they point everywhere alike, 0 where all have collapsed onto one (Chen and He 2021, section 4.1).
        `exclude` says who is no negative, and is not read.

        Raises:
            ValueError: `positive` is not one index a query, the features have another dimension than the objective was
                built for, or as for the loss.
        """
        query, key, positive = pairs[:3]
        if not isinstance(positive, Tensor) or positive.shape != query.shape[:1] or positive.dtype != torch.long:
            found = f"{positive.dtype} {shape(positive)}" if isinstance(positive, Tensor) else "labels"
            raise ValueError(f"without negatives each query needs one positive, long ({len(query)},), got {found}")
        query, key = self.project(query, key)
        key = key[positive]
        loss = self.loss(query, key)
        with torch.no_grad():
            unit = F.normalize(query.float(), dim=1)
            together = F.cosine_similarity(query.float(), key.float(), dim=1).mean()
            spread = unit.std(0, correction=0).mean() * unit.shape[1] ** 0.5
        return Outcome(loss, {"positive_similarity": together, "spread": spread})
