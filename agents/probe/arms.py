"""What is probed: words of a config become encoders. Shape legend: N frames, D features."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from ...core.preset import preset, presets
from .saved import agent_file

BASELINES = {
    "random": "the same network with random weights",
    "supervised": "the same network trained on the labels, end to end",
    "pixels": "the newest frame itself, averaged down",
}


class Arm(NamedTuple):
    """One encoder of a comparison.

    Attributes:
        name: in tables and folders.
        kind: `random`, `supervised`, `pixels`, `objective` (trained by a preset, without a policy) or `saved`.
        what: the preset, or the file, in which `{seed}` stands for the seed.
        overrides: that change the preset, as for `contraux.core.preset.preset`.
    """

    name: str
    kind: str
    what: str
    overrides: tuple[str, ...] = ()

    def file(self, seed: int) -> str:
        """Return the file of a saved encoder for one seed."""
        return self.what.replace("{seed}", str(seed))

    def objective(self) -> Any:
        """Return the config of the arm's objective."""
        return preset(self.what, *self.overrides)

    def settings(self, seed: int) -> dict[str, Any]:
        """Return what tells this arm from another of the same name."""
        if self.kind == "objective":
            return {"kind": self.kind, "objective": OmegaConf.to_container(self.objective(), resolve=True)}
        return {"kind": self.kind, **({"file": self.file(seed)} if self.kind == "saved" else {})}


def read_arms(encoders: Any, baselines: Any, seeds: Sequence[int]) -> list[Arm]:
    """Return the arms that a config names, baselines first.

    Args:
        encoders: None; one word; a list of words; or names with a word, or a list of a preset and overrides, each. A
            word is a baseline, a preset of an objective, or where an agent or encoder was saved.
        baselines: a list of baselines, each beside the encoders unless it is one of them.
        seeds: of the comparison: files must exist for each.

    Raises:
        ValueError: a word stands for nothing, an override does not fit, two arms have one name, or there is none.
    """
    if isinstance(encoders, str):
        encoders = [encoders]
    if isinstance(encoders, Mapping):
        arms = [_arm(str(name), _words(name, value), seeds) for name, value in encoders.items()]
    elif encoders is None or isinstance(encoders, Sequence):
        arms = [_arm(Path(str(word)).stem, [str(word)], seeds) for word in encoders or []]
    else:
        raise ValueError(f"encoders must be a word, a list, or names with a word each, got {encoders!r}")
    beside = []
    for word in [baselines] if isinstance(baselines, str) else baselines or []:
        if word not in BASELINES:
            raise ValueError(f"baselines must be of {', '.join(BASELINES)}, got {word!r}")
        if not any(arm.kind == word for arm in arms):
            beside.append(Arm(word, word, word))
    arms = [*beside, *arms]
    names = [arm.name for arm in arms]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two encoders have the name {name!r}: name them, encoders={{first: …, second: …}}")
        if name != Path(name).name:
            raise ValueError(f"the name of an encoder must be fit for a folder, got {name!r}")
    if not arms:
        raise ValueError("nothing to probe: give encoders=… or baselines=[random]")
    return arms


def _words(name: Any, value: Any) -> list[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, Sequence) or not words or not all(isinstance(word, str) for word in words):
        raise ValueError(f"encoders.{name} must be a word, or a list of a preset and overrides, got {value!r}")
    return list(words)


def _arm(name: str, words: list[str], seeds: Sequence[int]) -> Arm:
    first, *overrides = words
    if first in presets():
        arm = Arm(name, "objective", first, tuple(overrides))
        arm.objective()
        return arm
    if overrides:
        raise ValueError(f"overrides belong to a preset, of which {first!r} is none: {', '.join(presets())}")
    if first in BASELINES:
        return Arm(name, first, first)
    arm = Arm(name, "saved", first)
    files = {arm.file(seed) for seed in seeds}
    missing = sorted(file for file in files if not Path(file).exists() and agent_file(file) is None)
    if missing and (len(files) > 1 or "/" not in first or first.endswith(".zip") or Path(first).is_absolute()):
        near = get_close_matches(first, [*BASELINES, *presets()], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"words are {', '.join([*BASELINES, *presets()])}"
        raise ValueError(
            f"an encoder must be a word or where something was saved, and there is no {missing[0]!r}: {hint}"
        )
    return arm
