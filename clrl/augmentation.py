"""Augment what the host itself learns from: the arm that tells the auxiliary's effect from its augmentation's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from .discovery import ENCODER_SUFFIX
from .observations import Observer, Views
from .watch import watch


class ObservationAugmentation(BaseCallback):
    """While the model updates, every features extractor sees its input through views (Kostrikov et al. 2020, DrQ).

    Deviations from the paper: one view per observation, so K = M = 1 of its equations; target networks see augmented
    next observations too. On-policy, the old log-probabilities come from the observations as they were, so that the
    importance ratios of the first epoch differ from one, as in RAD (Laskin et al. 2020).

    Args:
        views: the view of each kind of leaf, e.g. `{"image": RandomShift(4)}`.
        seed: of the views; None takes the model's own seed.
        verbose: Stable-Baselines3's verbosity.
    """

    def __init__(self, views: Views, seed: int | None = None, verbose: int = 0):
        super().__init__(verbose)
        self.views: Views = dict(views)
        self.seed = seed
        self.generator = torch.Generator()
        self._seeded = False

    def _init_callback(self) -> None:
        policy = self.model.policy
        self.observer = Observer(
            policy.observation_space, policy.normalize_images, self.model.device, self.model.action_space
        )
        if not self.observer.shows_difference(self.views):
            kinds = sorted(set(self.observer.kinds.values()))
            raise ValueError(
                f"views must change at least one kind of observation among {kinds}, "
                f"got views for {sorted(kind for kind, view in self.views.items() if view is not None)}"
            )
        if not self._seeded:
            # Where a run is gone on with, other views than at its start.
            seed = self.seed if self.seed is not None else self.model.seed or 0
            self.generator.manual_seed(seed + self.model.num_timesteps)
            self._seeded = True
        watch(self.model, self, "an observation augmentation")

    def _on_training_start(self) -> None:
        self._learn = self.model.start_time

    def _on_step(self) -> bool:
        return True

    def attached(self, model: BaseAlgorithm) -> Any:
        """See :class:`~contraux.clrl.watch.Attachment`."""
        return self._hooked() if model is self.model and model.start_time == self._learn else None

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        encoders = {
            module
            for name, module in self.model.policy.named_modules()
            if name.rsplit(".", 1)[-1].endswith(ENCODER_SUFFIX)
        }
        handles = [module.register_forward_pre_hook(self._augment) for module in encoders]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _augment(
        self, _: Any, inputs: tuple[Tensor | dict[str, Tensor], ...]
    ) -> tuple[Tensor | dict[str, Tensor], ...]:
        return (self.observer.viewed(inputs[0], self.views, self.generator), *inputs[1:])
