"""MoCo v3: MoCo without a queue, symmetric, with a prediction head."""

from torch import Tensor, nn

from ..encoders import MomentumEncoder
from ..encoders.momentum import cosine_momentum
from ..pairs import Outcome
from ..projected import HeadFactory
from .layouts import query_to_key
from .method import Branch, Method, ObjectiveFactory, predicted, projected


class MoCoV3(Method):
    """Chen, Xie and He 2021, algorithm 1, https://arxiv.org/abs/2104.02057.

        q = prediction(projection(encoder(view)))    k = the momentum copy of projection and encoder
        InfoNCE(q1, k2) + InfoNCE(q2, k1), negatives are the other keys of the batch, of all processes

    The momentum rises to 1 along half a cosine (section 3). The copy's batch norm keeps running statistics of its own.
    The fixed random patch projection that steadies a ViT (section 4) is an option of the encoder, `frozen_patches`.

    Deviations: the factor 2 temperature of algorithm 1 is left out, to which LARS and Adam are blind; batch norm has
    the statistics of its process, unless the trainer synchronises it.

    Args:
        encoder: with `out_features`.
        projection: `in_features -> module` with `out_features`.
        prediction: likewise, on top of it, for queries; it keeps the dimension.
        objective: `dim -> Contrastive`.
        momentum: in [0, 1), at the beginning.

    Raises:
        ValueError: a number out of range, or as for the heads and the objective.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection: HeadFactory,
        prediction: HeadFactory,
        objective: ObjectiveFactory,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        self.online, dim = projected(encoder, projection)
        self.prediction = predicted(dim, prediction)
        self.target = MomentumEncoder(self.online, momentum, copy_buffers=False)
        self.objective = objective(dim)

    def branches(self, first: Tensor, second: Tensor) -> tuple[Branch, ...]:
        """Return projections and keys, of both views."""
        return (self.online, first), (self.online, second), (self.target, first), (self.target, second)

    def compare(self, *embeddings: Tensor, labels: Tensor | None = None) -> Outcome:
        """Return the sum of both losses and the means of their metrics, of `(B, D)` projections and keys."""
        first, second, key_first, key_second = embeddings
        one = self.objective(query_to_key(self.prediction(first), key_second.detach(), labels))
        other = self.objective(query_to_key(self.prediction(second), key_first.detach(), labels))
        metrics = {name: (value + other.metrics[name]) / 2 for name, value in one.metrics.items()}
        return Outcome(one.loss + other.loss, metrics)

    def update(self, progress: float) -> None:
        """Move the copy one step, the slower the nearer the end."""
        super().update(progress)
        self.target.update(self.online, cosine_momentum(self.target.momentum, progress))
