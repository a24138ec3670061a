"""InsGen: each image, real or fake, is a class of its own, told by a momentum copy of the discriminator.

Shape legend: N rows of a call, D feature dimension.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...core.check import number
from ...core.objectives import Contrastive
from ...core.pairs import Outcome, Pairs
from ...core.samplers import Queue
from ..method import Context, Features, GenerativeMethod, Sizes
from .outcomes import weighted


class InsGen(GenerativeMethod):
    """Yang, Shen, Xu and Zhou 2021, section 3, https://arxiv.org/abs/2106.04566.

        q = head(discriminator(x))    k = the momentum copies of head and discriminator, of `real_key` or `fake_key`
        InfoNCE of q with k against the queue of earlier keys; real and fake have a head and a queue each
        loss = real + fake_weight * fake;    for the generator: generator_weight * fake

    `real_key` are the same real images, augmented anew; `fake_key` are fakes of slightly moved latents,
    G(z + 0.15 noise), augmented, and for the generator the same fakes augmented anew. Both are images, given to
    `aux.loss(real_key=..., fake_key=...)`.

    In the generator's phase heads, copies and queues stand still. It runs on one process and on the CPU. Under several,
    the keys of all enter every queue.

    Deviations: copies move once a step, where the authors' code moves the momentum heads at every forward pass, so the
    fake one twice; queues hold what the copies put out, where the code's fake queue is filled from the discriminator
    itself. The queues begin empty, and other keys of the batch are negatives too (`contraux.core.samplers.Queue`).

    Args:
        sizes: of the tap `features`.
        objective: `objective(dim, momentum=..., sampler=...) -> Contrastive`; called once for real and once for fake.
        queue: `queue(size=...) -> Queue` of the dimension that the objective compares.
        size: keys that each queue remembers, >= 1; the paper's is a twentieth of the data. Much larger than the data,
            old keys of an image itself would be among its negatives.
        momentum: in [0, 1), of the copies of discriminator and heads.
        fake_weight: >= 0, of the fakes' loss beside that of the real images.
        generator_weight: >= 0, of the fakes' loss in the generator's phase.

    Raises:
        ValueError: a number out of range, or as for the objective.
    """

    key_roles = ("real_key", "fake_key")
    generator_roles = ("fake",)
    generator_key_roles = ("fake_key",)

    def __init__(
        self,
        sizes: Sizes,
        *,
        objective: Callable[..., Any],
        queue: Callable[..., Queue],
        size: int | None,
        momentum: float = 0.999,
        fake_weight: float = 1.0,
        generator_weight: float = 0.1,
    ) -> None:
        super().__init__()
        (dim,) = sizes["features"]
        self.momentum = number("momentum", momentum, 0.0, 1.0, below=True)
        self.fake_weight = number("fake_weight", fake_weight, 0.0)
        self.generator_weight = number("generator_weight", generator_weight, 0.0)
        if size is None:
            raise ValueError(
                "size must be how many keys InsGen's queues remember, a twentieth of the data in the paper, got None: "
                'attach(..., overrides=["module.size=N"])'
            )
        sampler = queue(size=size)  # each objective copies it
        self.real, self.fake = (objective(dim, momentum=self.momentum, sampler=sampler) for _ in range(2))

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return the sum of both losses; metrics of each under `real/` and `fake/`."""
        real = self.real(_pairs(features, "real"))
        return weighted(real=(1.0, real), fake=(self.fake_weight, self.fake(_pairs(features, "fake"))))

    def generator(self, features: Features, context: Context) -> Outcome:
        """Return the loss of the fakes, which no queue remembers."""
        with _without_remembering(self.fake):
            return weighted(fake=(self.generator_weight, self.fake(_pairs(features, "fake"))))

    def update(self) -> None:
        """Move the momentum heads one step; the copy of the discriminator moves with them."""
        self.real.update()
        self.fake.update()


def _pairs(features: Features, role: str) -> Pairs:
    """Return each image with its own key among the keys of the batch."""
    query, key = features[role]["features"], features[f"{role}_key"]["features"]
    return Pairs(query, key, torch.arange(len(query), device=query.device))


@contextmanager
def _without_remembering(objective: Contrastive) -> Iterator[None]:
    """Let the objective compare with its queue, which takes nothing in."""
    training = objective.sampler.training
    objective.sampler.eval()
    try:
        yield
    finally:
        objective.sampler.train(training)
