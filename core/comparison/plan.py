"""The runs of a comparison: which there are, and which of them are done."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf

from ..check import whole
from ..files import read_json

COMPOSED = "composed.yaml"
"""A run's settings as they were asked for; its `config.yaml` may have what the run chose where they were null."""

WITHOUT_EFFECT = (
    "compare",
    "progress_bar",
    "resume",
    "trusted",
)  # keys that may differ between two starts of one comparison


class Run(NamedTuple):
    """One run of a comparison."""

    arm: str
    seed: int
    folder: Path
    overrides: list[str]

    def result(self) -> dict[str, Any]:
        """Return what the run's `result.json` holds; empty where there is none yet."""
        return read_json(self.folder / "result.json")

    def ended(self) -> bool:
        """Return whether the run has completed or failed."""
        return self.result().get("status") in ("completed", "failed")


def read_controls(cfg: DictConfig) -> dict[str, str]:
    """Return `compare.controls`: for an arm another one, with which it is compared beside the first.

    Raises:
        ValueError: it is something else.
    """
    controls = cfg.compare.controls
    if not isinstance(controls, DictConfig) or not all(isinstance(own, str) for own in controls.values()):
        raise ValueError(f"compare.controls must name for each arm its control, such as {{x: y}}, got {controls!r}")
    return cast(dict[str, str], OmegaConf.to_container(controls))


def plan(cfg: DictConfig, overrides: Sequence[str], choices: Iterable[str] = ()) -> tuple[Path, list[Run]]:
    """Return the comparison's folder and its runs, seed by seed.

    Args:
        cfg: settings of the comparison, in `compare`.
        overrides: those of every run.
        choices: the groups as Hydra names them: an arm may write `method=x` for `gan/method@method=x`.

    Raises:
        ValueError: no experiment or arms, seeds that are no counts, or an arm that is no list of overrides.
    """
    settings = cfg.compare
    if settings.name is None:
        raise ValueError("compare needs experiment=NAME (or a compare.name and compare.arms of your own)")
    seeds, first = whole("compare.seeds", settings.seeds, 1), whole("compare.first_seed", settings.first_seed)
    if not isinstance(settings.arms, DictConfig) or not settings.arms:
        raise ValueError(f"compare.arms must name at least one arm and its overrides, got {settings.arms!r}")
    arms = cast(dict[str, Any], OmegaConf.to_container(settings.arms))
    for arm, own in arms.items():
        if not isinstance(own, list) or not all(isinstance(word, str) for word in own):
            raise ValueError(f"compare.arms.{arm} must be a list of overrides, such as [objective=none], got {own!r}")
    full = {name.rpartition("@")[2]: name for name in choices if "@" in name}
    words = {arm: [*overrides, *(in_full(word, full) for word in own), f"arm={arm}"] for arm, own in arms.items()}
    folder = Path(settings.folder)
    return folder, [
        Run(arm, seed, folder / arm / f"seed_{seed}", [*own, f"seed={seed}"])
        for seed in range(first, first + seeds)
        for arm, own in words.items()
    ]


def in_full(word: str, full: Mapping[str, str]) -> str:
    """Return an override with its group as Hydra names it; others, those that set a key of a group too, stay."""
    key, equals, value = word.partition("=")
    return f"{full.get(key, key)}{equals}{value}"


def kept(run: Run, settings: Mapping[str, Any]) -> bool:
    """Return whether a run is complete; ValueError if it was made with other settings than these."""
    if run.result().get("status") != "completed":
        return False
    file = next(path for name in (COMPOSED, "config.yaml") if (path := run.folder / name).exists())
    made = flat(cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file))))
    now = flat(settings)
    differing = [key for key in {**made, **now} if made.get(key) != now.get(key)]
    if differing:
        key, more = differing[0], f", and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise ValueError(
            f"{run.folder} was made with {key}={made.get(key)}, now {now.get(key)}{more}: give another compare.folder, "
            "or remove that one"
        )
    return True


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a config below dotted keys, without those that do not change what a run does."""
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        if not prefix and key in WITHOUT_EFFECT:
            continue
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return leaves
