"""Every YAML says something that exists, and every option composes into the jobs."""

import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import OmegaConf
from preset_kinds import objective_of

import contraux
import contraux.__main__  # objective=none is known to the command line only
from contraux.command_line import in_full
from contraux.core.preset import EXCHANGED, preset, presets

CONFIGS = Path(contraux.__file__).parent / "configs"
YAMLS = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
OPTIONS = [
    *sorted(f"{path.parent.relative_to(CONFIGS).as_posix()}={path.stem}" for path in CONFIGS.rglob("*/*.yaml")),
    "objective=none",
]
HYDRA_WORDS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_", "defaults"}
PAIRED_LOSSES = {"negative_cosine", "vicreg", "barlow_twins", "alignment_uniformity"}  # not for a similarity matrix
NEEDS_MORE = {
    "env=gym": ["env.id=CartPole-v1"],
    "env=atari": ["env.id=ALE/Pong-v5"],
    "encoder=timm": ["encoder.name=resnet18"],
    "data=folder": ["data.path=photos"],
    "data=frames": ["data.path=frames"],
    "data=imagenet": ["data.path=imagenet"],
    "data=arrays": ["data.inputs=x.npy"],
    "data=huggingface": ["data.name=beans"],
    "diffusion/model=folder": ["model.path=run"],
    "evaluate": ["checkpoint=run"],
    "record": [],
}
JOBS = (
    "rl", "compare", "pretrain", "evaluate", "record", "probe", "gan", "sample", "diffusion", "compare-gan",
    "compare-diffusion",
)  # fmt: skip
COMPARED = {"compare": "rl", "compare-gan": "gan", "compare-diffusion": "diffusion"}
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
GENERATIVE = {"digits_gan": "compare-gan", "digits_diffusion": "compare-diffusion"}
OF_THE_AUXILIARY = {"method", "objective", "weight", "generator_weight", "at"}


@functools.cache
def groups_of(job: str) -> dict[str, str]:
    """The folders of the groups that a job chooses from, as Hydra names them: `gan/method` as `gan/method@method`.

    Those in its defaults and in those of the configs it is made of.
    """
    found = {}
    for entry in yaml.safe_load((CONFIGS / f"{job}.yaml").read_text())["defaults"]:
        if isinstance(entry, dict):
            found |= {key.partition("@")[0]: key for key in entry if not key.startswith("override")}
        elif entry != "_self_":
            found |= groups_of(entry)
    return found


def nodes_with_target(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for child in node.values():
            yield from nodes_with_target(child)
    elif isinstance(node, list):
        for child in node:
            yield from nodes_with_target(child)


def composed(job: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_module("contraux.configs", version_base="1.3"):
        config = compose(job, list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        names = [str(key) for key in config if key != "hydra"]
        return OmegaConf.to_container(OmegaConf.masked_copy(config, names), resolve=True, throw_on_missing=True)


def test_the_walk_finds_something():
    assert {
        "rl.yaml",
        "compare.yaml",
        "pretrain.yaml",
        "method/moco.yaml",
        "agent/ppo.yaml",
        "env/cartpole.yaml",
        "objective/curl.yaml",
    } <= set(YAMLS)


@pytest.mark.parametrize("name", YAMLS)
def test_targets_exist_and_accept_their_keys(name):
    for node in nodes_with_target(yaml.safe_load((CONFIGS / name).read_text())):
        target = get_object(node["_target_"])
        arguments = {key: value for key, value in node.items() if key not in HYDRA_WORDS}
        inspect.signature(target).bind_partial(**arguments)
        if node["_target_"] == "hydra.utils.get_class":
            assert isinstance(get_object(node["path"]), type)


@pytest.mark.parametrize("name", [name for name in YAMLS if name.startswith("agent/")])
def test_agents_take_their_hyperparameters_at_the_defaults_of_sb3(name):
    agent = yaml.safe_load((CONFIGS / name).read_text())
    algorithm = get_object(agent.pop("algorithm")["path"])
    for key in ("policy", "policy_kwargs", "learn", "evaluation_callback"):
        agent.pop(key, None)
    accepted = inspect.signature(algorithm).parameters
    assert set(agent) <= set(accepted)
    differing = {key for key, value in agent.items() if value != accepted[key].default}
    assert differing <= {"buffer_size", "replay_buffer_class", "replay_buffer_kwargs"}


def job_of(experiment: str) -> str:
    return next((job for start, job in GENERATIVE.items() if experiment.startswith(start)), "compare")


def has(job: str, option: str) -> bool:
    """Whether a job has an option; of experiments each job of a host has that host's alone."""
    group, _, name = option.partition("=")
    hosts = ("rl", "compare") if (own := job_of(name)) == "compare" else (own,)
    return group in groups_of(job) and (group != "experiment" or job in hosts)


def options_of(job: str) -> list[str]:
    """The options of a job; of a comparison its own and one of each group that is the compared job's."""
    found = [option for option in OPTIONS if has(job, option)]
    inherited = groups_of(COMPARED[job]) if job in COMPARED else {}
    first = {option.partition("=")[0]: option for option in reversed(found)}.values()
    return [option for option in found if option.partition("=")[0] not in inherited or option in first]


def test_comparisons_have_the_groups_of_what_they_compare():
    for job, base in COMPARED.items():
        assert groups_of(base).items() <= groups_of(job).items()


@pytest.mark.parametrize(
    ("job", "option"),
    [(job, option) for job in JOBS for option in options_of(job)],
)
def test_every_option_composes(job, option):
    group, _, name = option.partition("=")
    words = [f"{groups_of(job)[group]}={name}", *NEEDS_MORE.get(option, [])]
    config = composed(job, *words, *NEEDS_MORE.get(job, []))
    if "/" in group:
        own = yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())
        assert config[group.partition("/")[2]].keys() == own.keys()
    if job in ("rl", "compare"):
        assert config["agent"]["algorithm"]["_target_"] == "hydra.utils.get_class"
        if option == "objective=none":
            assert config["objective"] == {"source": None, "module": None}
        else:
            assert config["auxiliary"]["objective"] == config["objective"]
    if group in EXCHANGED:
        assert config[group] == yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())


@pytest.mark.parametrize("job", JOBS)
def test_a_line_names_every_group_shortly(job):
    """No two groups of a job have one name on its line, which is the key that the group fills."""
    groups = groups_of(job)
    short = {folder.rpartition("/")[2]: name for folder, name in groups.items()}
    assert len(short) == len(groups)
    assert in_full(job, [f"{name}=x,y" for name in short]) == [f"{name}=x,y" for name in short.values()]
    assert all(name in (folder, f"{folder}@{folder.rpartition('/')[2]}") for folder, name in groups.items())
    assert in_full(job, ["-m", *(f"{name}.key=x" for name in short)]) == ["-m", *(f"{name}.key=x" for name in short)]


def test_every_group_belongs_to_a_job():
    files = [path for path in CONFIGS.rglob("*/*.yaml") if not path.parent.name.startswith("_")]
    groups = {path.parent.relative_to(CONFIGS).as_posix() for path in files}
    assert groups == set().union(*(groups_of(job) for job in JOBS))


@functools.cache
def module_of(objective: str) -> Any:
    return preset(objective).module


@pytest.mark.parametrize("objective", presets())
@pytest.mark.parametrize("option", [option for option in OPTIONS if option.split("=")[0] in EXCHANGED])
def test_every_part_takes_the_place_of_every_objectives_own(objective, option):
    group, _, name = option.partition("=")
    if group not in module_of(objective):
        with pytest.raises(ValueError, match=f"needs an objective that has a {group}, got contraux"):
            preset(objective, option)
        return
    config = preset(objective, option)
    assert OmegaConf.to_container(config.module[group]) == yaml.safe_load(
        (CONFIGS / group / f"{name}.yaml").read_text()
    )
    own = module_of(objective)["loss"]["_target_"].rsplit(".", 1)[-1]
    if group == "loss" and (name in PAIRED_LOSSES) != (own in PAIRED_LOSSES):
        sentence = f"a similarity matrix, got {name}" if name in PAIRED_LOSSES else "a loss of paired rows, got "
        with pytest.raises(ValueError, match=sentence):
            objective_of(config, 128)
    else:
        assert objective_of(config, 128).dim == 128  # what queue and bilinear are set to


@functools.cache
def arms_of(experiment: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What `compare` says, and the settings of each arm."""
    job = job_of(experiment)
    settings = composed(job, f"experiment={experiment}")["compare"]
    return settings, {
        arm: composed(job, f"experiment={experiment}", *in_full(job, own)) for arm, own in settings["arms"].items()
    }


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_arm_of_every_experiment_composes_and_differs(experiment):
    settings, arms = arms_of(experiment)
    assert settings["name"] == experiment and settings["folder"] == f"runs/compare/{experiment}"
    assert next(iter(arms)) == "base"
    seen = list(arms.values())
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if job_of(name) == "compare"])
def test_experiments_of_agents_have_an_inert_arm(experiment):
    config = composed("compare", f"experiment={experiment}")
    assert config["objective"]["module"] is None or {"weight_0", "auxiliary"} <= set(config["compare"]["arms"])


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if job_of(name) != "compare"])
def test_generative_experiments_have_a_control_for_each_method_and_an_arm_of_equal_time(experiment):
    """A method is compared with an arm that differs by nothing else, and with base on as much time."""

    def differing(one, other):
        return {key for key in one if one[key] != other[key]} - {"trainer"}  # which repeats steps and weight

    settings, arms = arms_of(experiment)
    module = "method" if job_of(experiment) == "compare-gan" else "objective"
    assert arms["base"][module]["module"] is None and settings["seeds"] >= 5
    assert differing(arms["base"], arms["equal_time"]) == {"steps"}
    assert arms["equal_time"]["steps"] > arms["base"]["steps"]
    methods = {arm: own for arm, own in arms.items() if own[module]["module"] is not None}
    assert len(methods) >= 2 and settings["controls"].keys() <= methods.keys()
    for arm, own in methods.items():
        control = arms[settings["controls"].get(arm, "base")]
        assert control[module]["module"] is None
        assert module in (found := differing(control, own)) and found <= OF_THE_AUXILIARY


def test_weight_reaches_the_auxiliary():
    assert composed("rl", "weight=0.25")["auxiliary"]["weight"] == 0.25


@pytest.mark.parametrize(
    ("job", "word", "weights"),
    [
        ("gan", "gan/method@method=infomax", (0.2, 0.2)),
        ("gan", "gan/method@method=contrad", (1.0, 0.0)),
        ("diffusion", "diffusion/objective@objective=repa", (0.5,)),
    ],
)
def test_a_method_has_its_papers_weight_unless_the_line_says_otherwise(job, word, weights):
    def found(*overrides):
        trainer = composed(job, word, *overrides)["trainer"]
        return tuple(trainer[name] for name in ("weight", "generator_weight") if name in trainer)

    assert found() == weights
    assert found("weight=0.7") == (0.7, *weights[1:])
