"""How the learning rate moves."""

from ...core.pretraining.schedule import warmup_cosine


def factor(step: int, steps: int, warmup: int, decay: str) -> float:
    """Return the factor of the learning rate: linear from 1 / warmup to 1, then 1, or half a cosine down to 0.

    Args:
        step: from 0.
        steps: of the whole training.
        warmup: steps of the rise.
        decay: constant or cosine.
    """
    if decay == "cosine":
        return warmup_cosine(step, steps, warmup)
    return min(1.0, (step + 1) / max(warmup, 1))
