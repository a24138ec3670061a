"""What `contraux` does to a command line before Hydra reads it, and how it explains what Hydra could not make of it."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from hydra.utils import get_object
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONFIGS = "contraux.configs"
VOUCHED_FOR = ("contraux.", "stable_baselines3.", "sb3_contrib.")
OPTIMIZERS = re.compile(r"torch\.optim\.[A-Za-z]+")
RESUMABLE = {
    "rl": ("trusted", "steps", "evaluation", "checkpoint", "threads", "device", "tensorboard", "progress_bar"),
    "pretrain": (
        "trusted", "evaluation", "pictures", "threads", "device", "trackers", "progress_bar", "trainer.workers",
        "trainer.log_every", "trainer.checkpoint_every",
    ),
    "gan": (
        "trusted", "evaluation", "threads", "device", "trackers", "progress_bar", "trainer.collapse_after",
        "trainer.log_every", "trainer.checkpoint_every", "trainer.sample_every",
    ),
    "diffusion": (
        "trusted", "evaluation", "samples", "threads", "device", "trackers", "progress_bar", "trainer.log_every",
        "trainer.checkpoint_every",
    ),
}  # fmt: skip


def prepare(job: str, words: list[str]) -> list[str]:
    """Return the words of a job's line as Hydra is to see them.

    * `env=<a Gymnasium id>` becomes the generic option and its `env.id`;
    * `resume=FOLDER` takes the configuration from that folder and writes into it again;
    * a group that lies in a job's own folder is written in full: `backbone=dcgan` is `gan/backbone@backbone=dcgan`.

    Raises:
        ValueError: an unknown id, a folder that holds no run, a key that must not change when resuming, or a sweep over
            comparisons.
    """
    if job == "compare" and {"-m", "--multirun"} & set(words):
        raise ValueError("compare runs its arms in parallel by itself, got -m: make each value of a sweep an arm")
    words = [new for word in words for new in _env(word)]
    folder = next((word.partition("=")[2] for word in words if re.match(r"resume=(?!null$).", word)), None)
    if folder is not None and job in RESUMABLE:
        return _resume(Path(folder.strip("'\"")), words, RESUMABLE[job])
    return in_full(job, words)


def in_full(job: str, words: Iterable[str]) -> list[str]:
    """Return the words of a line with groups named as Hydra names them: `method=x` as `gan/method@method=x`.

    Other words, those that only set a key of a group (`method.weight=1`) among them, stay as they are.
    """
    groups = _groups(job)
    split = [word.partition("=") for word in words]
    return [f"{groups.get(key, key)}{equals}{value}" for key, equals, value in split]


def _env(word: str) -> list[str]:
    value = word.removeprefix("env=")
    options = set(group_options("env"))
    if value in (word, "", "???") or set(value.split(",")) <= options:
        return [word]
    from .agents.environments import group_override

    return group_override(value, options)


def _resume(folder: Path, words: list[str], changeable: Sequence[str]) -> list[str]:
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"resume must be a run folder, which has a config.yaml, got {str(folder)!r}")
    for word in words:
        key = word.split("=")[0]
        if not word.startswith(("resume=", "-")) and not f"{key}.".startswith(tuple(f"{name}." for name in changeable)):
            raise ValueError(
                f"a resumed run keeps its settings: beside resume only {', '.join(changeable)} may change, got {word!r}"
            )
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    outside = sorted(set(_named(config)))
    if isinstance(config, dict) and {"defaults", "hydra"} & set(config):
        outside.append("whatever its defaults and hydra sections name")
    if outside and "trusted=true" not in words:
        raise ValueError(
            f"a config is code, and the one in {folder} would run {outside[0]}, which is neither contraux's nor "
            "Stable-Baselines3's nor an optimizer of torch; add trusted=true if you wrote it"
        )
    here = [f"hydra.run.dir={_quoted(folder)}", "hydra.output_subdir=null", "hydra/job_logging=none"]
    return ["--config-dir", str(folder), "--config-name", "config", *words, *here]


def _named(node: Any) -> Iterator[str]:
    """The dotted names a config would run (`_target_`, and the `path` of a class) that nobody vouched for."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if isinstance(node, dict):
        for key, child in node.items():
            path = key == "path" and str(node.get("_target_")).startswith("hydra.utils.")
            if (key == "_target_" or path) and not _vouched_for(str(child)):
                yield str(child)
            yield from _named(child)


def _vouched_for(name: str) -> bool:
    """Whether a dotted name is what we or our hosts define; not merely reachable through an import of theirs."""
    if name == "hydra.utils.get_class" or OPTIMIZERS.fullmatch(name):
        return True
    if not name.startswith(VOUCHED_FOR):
        return False
    try:
        found = get_object(name)
    except (ImportError, ValueError):
        return True  # it runs nothing, and Hydra will say that it does not exist
    from .core.preset import made_for_configs  # here: it takes torch, and `--help` needs none of it

    module = getattr(found, "__module__", None) or ""
    return module.startswith(VOUCHED_FOR) and (not name.startswith("contraux.") or made_for_configs(name, found))


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", r"\'") + "'"


def to_complete(job: str, words: list[str], new_word: bool) -> list[str]:
    """Return a line for Hydra to complete: whole words in full, the one that is being typed by its folder."""
    if new_word or not words:
        return in_full(job, words)
    key, equals, value = words[-1].partition("=")
    last = f"{_folder(job, key)}={value}" if equals and key in _groups(job) else words[-1]
    return [*in_full(job, words[:-1]), last]


def completions(job: str, found: Iterable[str], typed: str) -> list[str]:
    """Return what Hydra found for a line, with the job's own groups alone, by the names that the line has for them."""
    nested = {_folder(job, group): group for group in _groups(job) if "/" in _folder(job, group)}
    folders = {folder.partition("/")[0] for folder in _folders() if "/" in folder}
    kept = {f"{group}=" for group in nested.values() if "=" not in typed and f"{group}=".startswith(typed)}
    for word in found:
        key, equals, value = word.partition("=")
        if key in nested:
            kept.add(f"{nested[key]}{equals}{value}")
        elif key.partition("/")[0] not in folders:
            kept.add(word)
    return sorted(kept)


def group_options(group: str) -> list[str]:
    """Return the names of the YAML files of a group, whose name is its folder's, sorted."""
    folder = files(CONFIGS).joinpath(*group.split("/"))
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def explain(job: str, words: list[str], error: BaseException) -> str | None:
    """Return a sentence for what the user can mend; None for an error that needs its traceback."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return _instantiation(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return nearest(f"{_short(job, group)} option", option, error.options)
    if isinstance(error, OverrideParseException):
        what = str(error).splitlines()[0]
        return f"cannot read {error.override!r} ({what}): quote a value with signs in it, \"key='a=b'\""
    if str(error).startswith("Config group override must be"):
        return _no_option(job, words)
    if isinstance(error, HydraException | OmegaConfBaseException):
        key = re.match(r"Could not override '([^']+)'", str(error))
        if key is not None:
            return _unknown_key(job, words, key[1])
        if isinstance(error.__cause__, OmegaConfBaseException):
            return _joined(f"{error} {error.__cause__}")
        return _joined(str(error))
    if isinstance(error, AttributeError | TypeError):
        return _replaced_section(job, words)
    return str(error) if type(error) is ValueError else None


def _instantiation(error: InstantiationException) -> str | None:
    cause: BaseException = error
    while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, ValueError):
        return str(cause)
    where = re.search(r"full_key: (\S+)", str(error))
    return f"{type(cause).__name__}: {_joined(str(cause))}" + (f" (at {where[1]})" if where else "")


def _joined(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _unknown_key(job: str, words: list[str], found: str) -> str:
    config, group = _composed(job, words), found.split(".")[0]
    if group in _groups(job) and config.get(group, "") is None:
        options = ", ".join(group_options(_folder(job, group)))
        return f"unknown key {found!r}, for no option of {group} is chosen: write {group}=NAME first, one of {options}"
    return nearest_key(found, dict.fromkeys([*sorted(_groups(job)), *_dotted(config, "")]))


def _no_option(job: str, words: list[str]) -> str:
    """Return a sentence for `group=null`, with which Hydra can do nothing, or for a section named like a group."""
    full = {name: group for group, name in _groups(job).items()}
    split = [word.partition("=") for word in words]
    group = next((full[key] for key, _, value in split if key in full and value == "null"), "")
    if not group:
        return _replaced_section(job, words) or "a group must be the name of an option, got null: leave it out"
    options = ", ".join(group_options(_folder(job, group)))
    return f"{group} must be the name of an option, got null: leave it out for the default, or take one of {options}"


def _replaced_section(job: str, words: list[str]) -> str | None:
    """Return a sentence where the line puts one value in the place of several keys; None where it does not."""
    config, groups = _composed(job, words), _groups(job)
    for word in words:
        key, _, value = word.partition("=")
        if key not in groups and isinstance(config.get(key), dict) and not value.startswith("{"):
            keys = ", ".join(str(name) for name in config[key] if not str(name).startswith("_"))
            return f"{key} must keep its keys, got {word!r}: set {key}.KEY=VALUE, of {keys}"
    return None


def _composed(job: str, words: list[str]) -> dict[str, Any]:
    """Return the job's config with the groups the line chooses, and nothing else of the line."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    groups = set(_groups(job).values())
    chosen = [word for word in words if word.split("=")[0] in groups and "," not in word and word[-5:] != "=null"]
    GlobalHydra.instance().clear()  # of the job that has just ended with an error
    with initialize_config_module(CONFIGS, version_base="1.3"):
        config: Any = OmegaConf.to_container(compose(job, chosen))
    return config


def own_groups(job: str, text: str) -> str:
    """Return the text of a job's help with its own groups alone, by the names that its line has for them."""
    everything = set(_folders())
    own = {_folder(job, group): group for group in _groups(job)}
    kept = []
    for line in text.splitlines(keepends=True):
        name, colon, options = line.partition(": ")
        if name in own and colon:
            kept.append(f"{own[name]}: {options}")
        elif name not in everything or not colon:
            kept.append(line)
    return "".join(kept)


def _folders(parent: str = "") -> Iterator[str]:
    """The folders of all groups, those within others too: `data`, `gan/backbone`."""
    for entry in files(CONFIGS).joinpath(*parent.split("/")).iterdir():
        if entry.is_dir():
            name = f"{parent}/{entry.name}".lstrip("/")
            yield name
            yield from _folders(name)


def _groups(job: str) -> dict[str, str]:
    """Return the groups of a job: those its defaults choose from, and those of the configs it is made of.

    By the name that a line has for them, each as Hydra names it. The two differ where a group lies in a job's own
    folder, because another job has a group of that name: `method` is `gan/method@method`.
    """
    config: Any = OmegaConf.create(files(CONFIGS).joinpath(f"{job}.yaml").read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for entry in config.get("defaults", []):
        if not isinstance(entry, str):
            names = [str(key) for key in entry if not str(key).startswith("override")]
            found |= {name.rpartition("@")[2]: name for name in names}
        elif entry != "_self_":
            found |= _groups(entry)
    return found


def _folder(job: str, group: str) -> str:
    return _groups(job)[group].partition("@")[0]


def _short(job: str, folder: str) -> str:
    """Return the name that a line has for the group of a folder."""
    return next((group for group in _groups(job) if _folder(job, group) == folder), folder)


def _dotted(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield f"{prefix}{key}"
            yield from _dotted(child, f"{prefix}{key}.")


def nearest(kind: str, found: str, known: Iterable[str]) -> str:
    """Return a sentence that says what was not known and names the nearest of what is."""
    known = list(known)
    near = difflib.get_close_matches(found, known, n=3, cutoff=0.6)
    return f"unknown {kind} {found!r}: {_hint(near, known)}"


def nearest_key(found: str, known: Iterable[str]) -> str:
    """Like :func:`nearest` for dotted keys: `n_epoch` finds `agent.n_epochs`, and what stands before counts less."""
    known = list(known)
    open_ended = [key for key in known if key.endswith("kwargs") and (found == key or found.startswith(f"{key}."))]
    if open_ended:
        return f"{open_ended[0]} takes any entry, with a + before it: +{open_ended[0]}.NAME=VALUE, got {found!r}"
    likeness = {key: _likeness(found, key) for key in known}
    best = max(likeness.values())
    near = [key for key in sorted(known, key=lambda key: -likeness[key]) if likeness[key] > max(0.6, best - 0.1)]
    shown = [key for key in known if "." not in key and not key.startswith("_")]
    return f"unknown key {found!r}: {_hint(near[:3], shown)}"


def _likeness(one: str, other: str) -> float:
    (parent, _, name), (other_parent, _, other_name) = one.rpartition("."), other.rpartition(".")
    names = difflib.SequenceMatcher(None, name, other_name).ratio()
    return 0.7 * names + 0.3 * difflib.SequenceMatcher(None, parent, other_parent).ratio()


def _hint(near: list[str], known: list[str]) -> str:
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
