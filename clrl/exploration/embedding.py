"""The agent's own embedding of observations: its encoder as the host and its auxiliary have trained it.

Shape legend: N observations, D embedding dimension.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..callback import ContrastiveAuxiliary
from ..discovery import ENCODER_SUFFIX, choose_encoders
from ..observations import Observer
from ..stores import Observations
from ..watch import attachments


class Embedding:
    """Observations to embeddings, without a gradient and in evaluation mode.

    Args:
        model: the host.
        observer: its observation space.
        role: `critic` or `actor`: whose encoder, where they are not one.
        projected: whether the auxiliary's projection head comes after it.
        unit_length: whether embeddings are divided by their norm.

    Raises:
        ValueError: the model has no encoder, or no auxiliary with a projection of it.
    """

    def __init__(self, model: BaseAlgorithm, observer: Observer, role: str, *, projected: bool, unit_length: bool):
        self.observer, self.unit_length = observer, unit_length
        self.encoder = find_encoder(model, role)
        self.projection = find_projection(model, self.encoder) if projected else nn.Identity()
        self.dim = int(self.projection.out_features if projected else self.encoder.features_dim)  # type: ignore[arg-type]

    def __call__(self, observations: Observations) -> Tensor:
        """`(N, ...)` raw observations by leaf -> `(N, D)`."""
        with torch.no_grad(), _evaluating(self.encoder), _evaluating(self.projection):
            z_ND = self.projection(self.encoder.forward(preprocessed(self.observer, observations)))
        return normalize(z_ND) if self.unit_length else z_ND


def preprocessed(observer: Observer, observations: Observations) -> Tensor | dict[str, Tensor]:
    """Raw observations as the host's encoders take them."""
    return observer.encoder_input(observations, {}, _UNUSED)


def find_encoder(model: BaseAlgorithm, role: str) -> nn.Module:
    """The encoder of that role which an optimizer trains; where none is trained, the policy's first (frozen, or plain).

    Raises:
        ValueError: the policy has no features extractor.
    """
    try:
        return choose_encoders(model, role)[0][0].module
    except ValueError:
        for name, module in model.policy.named_modules():
            if name.rsplit(".", 1)[-1].endswith(ENCODER_SUFFIX):
                return module
        raise


def find_projection(model: BaseAlgorithm, encoder: nn.Module) -> nn.Module:
    """The projection head of the contrastive auxiliary that trains the encoder.

    Raises:
        ValueError: there is no such auxiliary, or its objective projects nothing.
    """
    for auxiliary in attachments(model, ContrastiveAuxiliary):
        for step in auxiliary.steps.values():
            head = getattr(step.objective, "projection", None)
            if step.encoder is encoder and isinstance(head, nn.Module) and hasattr(head, "out_features"):
                return head
    raise ValueError(
        "embedding=projection needs a ContrastiveAuxiliary on the same encoder whose objective has a projection head, "
        "found none: use embedding=features, or an objective such as curl"
    )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    if training:
        module.eval()
    try:
        yield
    finally:
        if training:
            module.train()


_UNUSED = torch.Generator()  # no view draws from it
