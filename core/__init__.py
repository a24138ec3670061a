"""Everything contrastive that does not know its host; `contraux.core.pairs` is the contract, read it first.

Presets (`contraux.core.preset`) are imported from their own module, so that the core alone does not load Hydra.
"""

if __name__ == "core":
    raise ImportError(
        "this folder is the package `contraux.core`, not `core`: install the repository (`pip install -e .`) and write "
        "`from contraux.core import ...`, otherwise every class would exist twice"
    )

from .gradient import auxiliary_gradients
from .kernels import contrastive_loss
from .layout import two_view_pairs
from .metrics import contrastive_metrics
from .negative_free import NegativeFree
from .objectives import Contrastive
from .pairs import Objective, Outcome, Pairs, SameLabel
from .temperature import LearnedTemperature

__all__ = [
    "Contrastive",
    "LearnedTemperature",
    "NegativeFree",
    "Objective",
    "Outcome",
    "Pairs",
    "SameLabel",
    "auxiliary_gradients",
    "contrastive_loss",
    "contrastive_metrics",
    "two_view_pairs",
]
