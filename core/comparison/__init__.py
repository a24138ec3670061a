"""Comparisons of arms over the same seeds, through whichever of Hydra's launchers is chosen, whatever a run trains.

The launcher gets one list of overrides per seed and arm, seed by seed, so that arms are interleaved and an interruption
leaves whole pairs; each run writes its own folder `<arm>/seed_<n>`, from which all that is reported is read. Finished
runs are kept when the comparison is started again; one that failed or was cut short starts anew.
(A Hydra sweeper would be the other way to say this, but Hydra takes sweepers only from a package `hydra_plugins`.)

A host gives two functions, one that does a run and one that reports on all of them. Importing this loads Hydra.
"""

from .launch import compare
from .plan import Run, read_controls

__all__ = ["Run", "compare", "read_controls"]
