"""InfoMax-GAN: a global vector picks out the places of its own feature map.

Shape legend: N images, C channels, L places of the map, D global features.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.objectives import Contrastive
from ...core.pairs import Outcome, Pairs, SameLabel
from ...core.projected import HeadFactory
from ...core.samplers import InBatch
from ...core.similarity import dot
from ..method import Context, Features, GenerativeMethod, ObjectiveFactory, Sizes
from .heads import Head


class InfoMaxGAN(GenerativeMethod):
    """Lee, Tran and Cheung 2021, section 3.2, https://arxiv.org/abs/2007.04589.

        u_ijl = global_head(g_i) . local_head(f_jl),   g the global features of image i, f_jl place l of the map of j
        L = 1/(N L) sum_il -log( e^{u_iil} / (e^{u_iil} + sum_{j != i, m} e^{u_ijm}) )

    for the discriminator on real images, for the generator on its fakes with the same heads, which stand still then:
    taps `local` (a map `(C, ...)` of two or more dimensions of space, or tokens `(T, C)`) and `global`. The paper takes
    the map before the last block and the pooled last map, 0.2 times this loss, and SNGAN's losses.

    Deviation: the other places of image i itself are left out of the denominator, where the authors' code (mimicry)
    gives them the logit -10, so that each still counts e^-10. The sum over negatives is taken once for each image,
    where the code repeats it for each place. With dot products, what is linear at the end of `local_head` is applied to
    the few global vectors in the place of the many local ones (`Head.pulled_back`): the same u, in another order.

    Args:
        sizes: of the taps `local` and `global`.
        local_head: `in_features -> module` with `out_features`, for each place.
        global_head: likewise for global features, with the same `out_features`.
        objective: `dim -> objective` of global queries and local keys.

    Raises:
        ValueError: the map has no places, or the two heads put out different dimensions.
    """

    taps: ClassVar[Mapping[str, str]] = {"local": "map", "global": "pooled"}
    generator_roles = ("fake",)

    def __init__(
        self, sizes: Sizes, *, local_head: HeadFactory, global_head: HeadFactory, objective: ObjectiveFactory
    ) -> None:
        super().__init__()
        shape = sizes["local"]
        if len(shape) < 2:
            raise ValueError(f"the tap 'local' must be a map (C, H, W) or tokens (T, C), got {shape} for each example")
        (dim,) = sizes["global"]
        self.local_head = local_head(shape[-1] if len(shape) == 2 else shape[0])
        self.global_head = global_head(dim)
        head: Any = self.local_head
        out, other = self.global_head.out_features, head.out_features
        if out != other:
            raise ValueError(f"local_head and global_head must put out one dimension, got {other} and {out}")
        self.objective = objective(out)  # type: ignore[arg-type]
        self._pulls_back = (
            isinstance(head, Head) and head.factors <= head.out_features and _products_alone(self.objective)
        )
        if self._pulls_back:
            self.objective = objective(head.factors)

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return the loss of the real images; the fakes are not looked at."""
        return self._outcome(features["real"]["local"], features["real"]["global"])

    def generator(self, features: Features, context: Context) -> Outcome:
        """Return the loss of the fakes."""
        return self._outcome(features["fake"]["local"], features["fake"]["global"])

    def update(self) -> None:
        """Tell the objective that a step is over."""
        self.objective.update()

    def _outcome(self, local: Tensor, whole: Tensor) -> Outcome:
        rows = local.flatten(0, 1) if local.ndim == 3 else local.flatten(2).transpose(1, 2).flatten(0, 1)  # (N L, C)
        image = torch.arange(len(whole), device=whole.device)
        positive = SameLabel(image, image.repeat_interleave(len(rows) // len(whole)))
        query = self.global_head(whole)
        if self._pulls_back:
            head: Any = self.local_head
            pairs = Pairs(head.pulled_back(query), head.before_last(rows), positive)
        else:
            pairs = Pairs(query, self.local_head(rows), positive)
        outcome: Outcome = self.objective(pairs)
        return outcome


def _products_alone(objective: Any) -> bool:
    """Return whether an objective looks at the dot products of its vectors and at nothing else."""
    if not isinstance(objective, Contrastive):
        return False
    heads = not isinstance(objective.projection, nn.Identity) or objective.prediction or objective.momentum
    compare = getattr(objective.similarity, "func", objective.similarity)
    return not heads and compare is dot and type(objective.sampler) is InBatch
