"""MoCo v1 and v2: keys of a momentum encoder, remembered in a queue."""

from torch import Tensor, nn

from ..encoders import MomentumEncoder
from ..pairs import Outcome
from ..projected import HeadFactory
from .layouts import query_to_key
from .method import Branch, Method, ObjectiveFactory, projected
from .shuffled import Shuffled


class MoCo(Method):
    """He et al. 2020, algorithm 1, https://arxiv.org/abs/1911.05722.

        q = projection(encoder(first))    k = their momentum copy of the second view, batch norm shuffled
        InfoNCE of q with k and the queue; then the keys enter the queue

    v1 and v2 are one algorithm: v2 (Chen et al. 2020, https://arxiv.org/abs/2003.04297) has a hidden layer in the head,
    temperature 0.2, blur among the views and a cosine schedule.

    Batch norm of keys: `Shuffled` says how it differs between one process and several. The copy keeps running
    statistics of its own, as in the authors' code.

    Deviations: negatives are the queue and the other keys of the batch, and the queue begins empty
    (`contraux.core.samplers.Queue`); the copy moves after the optimizer step instead of before the next forward pass,
    which is the same but for the very first step.

    Args:
        encoder: with `out_features`.
        projection: `in_features -> module` with `out_features`.
        objective: `dim -> Contrastive` whose sampler is a `Queue` of this dimension.
        momentum: in [0, 1), of encoder and projection; m in eq. 2.
        shuffle_groups: in one process, groups in which keys are encoded; 1 shuffles nothing.

    Raises:
        ValueError: a number out of range, or as for the heads and the objective.
    """

    local_batch_norm = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection: HeadFactory,
        objective: ObjectiveFactory,
        momentum: float = 0.999,
        shuffle_groups: int = 4,
    ) -> None:
        super().__init__()
        self.online, dim = projected(encoder, projection)
        self.target = Shuffled(MomentumEncoder(self.online, momentum, copy_buffers=False), shuffle_groups)
        self.objective = objective(dim)

    def branches(self, first: Tensor, second: Tensor) -> tuple[Branch, ...]:
        """Return queries of the first view and keys of the second."""
        return (self.online, first), (self.target, second)

    def compare(self, *embeddings: Tensor, labels: Tensor | None = None) -> Outcome:
        """Return loss and metrics of `(B, D)` queries and keys, which the queue then remembers."""
        query, key = embeddings
        return self.objective(query_to_key(query, key.detach(), labels))

    def update(self, progress: float) -> None:
        """Move the copy one step towards encoder and projection (eq. 2); the momentum is constant."""
        super().update(progress)
        self.target.encoder.update(self.online)
