"""Several objectives of one method as one outcome."""

from torch import Tensor

from ...core.pairs import Outcome


def weighted(**parts: tuple[float, Outcome]) -> Outcome:
    """Return the sum of the losses, each times its weight, and the metrics of all, as `real/accuracy`.

    The loss of each part, before its weight, is among them as `real/loss`.
    """
    metrics: dict[str, Tensor] = {}
    for name, (_, outcome) in parts.items():
        metrics[f"{name}/loss"] = outcome.loss.detach()
        metrics |= {f"{name}/{key}": value for key, value in outcome.metrics.items()}
    losses = [weight * outcome.loss for weight, outcome in parts.values()]
    return Outcome(sum(losses[1:], start=losses[0]), metrics)
