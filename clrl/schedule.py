"""How the auxiliary's weight changes while the host learns; as plain words, which files can hold."""

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda remaining: 1.0,
    "linear": lambda remaining: remaining,
    "cosine": lambda remaining: 0.5 - 0.5 * math.cos(math.pi * remaining),
}
"""Name -> factor on the weight for the share of `learn` that remains, 1 at its start and 0 at its end."""
