"""Weights that torchvision offers for its models."""

from collections.abc import Mapping
from typing import Any

from torchvision.models import get_model_weights

from ..check import choice


def library_weights(model: str, weights: str | None) -> Mapping[str, Any] | None:
    """Download torchvision's weights of a model, check their hash, and return them; None for no weights.

    The file is a pickle, of which only tensors are read.

    Args:
        model: torchvision's name of it.
        weights: `DEFAULT`, or one of the names that torchvision has for this model.

    Raises:
        ValueError: the model has no weights of that name, or they could not be downloaded.
    """
    if weights is None:
        return None
    known = get_model_weights(model)
    if weights != "DEFAULT":
        choice(f"weights of {model}", weights, [entry.name for entry in known])
    try:
        return known[weights].get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise ValueError(f"the weights {weights} of {model} could not be downloaded: {error}") from error
