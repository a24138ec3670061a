"""Linear probes of the state behind what an agent sees: of Atari's RAM, or of any state vector (Anand et al. 2019)."""

from .probe import Probe, Splits
from .recording import Recording, record
from .split import Split, split, varying
from .variables import Variable, games, ram_variables

__all__ = ["Probe", "Recording", "Split", "Splits", "Variable", "games", "ram_variables", "record", "split", "varying"]
