"""What a pretrained encoder is worth: probes with few labels and many, neighbours, episodes, geometry."""

from ..paired import Difference
from .baselines import RawInputs, calibrate
from .draws import draw_labels
from .episodes import Episodes
from .evaluate import Arm, Comparison, compare, evaluate, quick
from .features import features
from .fine_tune import FineTune
from .geometry import Geometry, effective_rank
from .linear import FewLabels, LinearProbe, Probe
from .neighbours import NearestNeighbours, nearest_neighbours
from .statistics import Figure, paired
from .subject import Features, Found, Measure, Subject

__all__ = [
    "Arm",
    "Comparison",
    "Difference",
    "Episodes",
    "Features",
    "FewLabels",
    "Figure",
    "FineTune",
    "Found",
    "Geometry",
    "LinearProbe",
    "Measure",
    "NearestNeighbours",
    "Probe",
    "RawInputs",
    "Subject",
    "calibrate",
    "compare",
    "draw_labels",
    "effective_rank",
    "evaluate",
    "features",
    "nearest_neighbours",
    "paired",
    "quick",
]
