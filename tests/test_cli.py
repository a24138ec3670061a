"""The command line as a user meets it: in processes of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import contraux
from contraux.__main__ import JOBS

PROGRAM = Path(sys.executable).with_name("contraux")
CONFIGS = Path(contraux.__file__).parent / "configs"
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


def run(*words, cwd, **environment):
    environment = {**os.environ, "COLUMNS": "200", **environment}
    environment.pop("HYDRA_FULL_ERROR", None) if "HYDRA_FULL_ERROR" not in environment else None
    return subprocess.run(
        [PROGRAM, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def test_help_and_version(tmp_path):
    for words in ([], ["--help"]):
        done = run(*words, cwd=tmp_path)
        assert done.returncode == 0
        assert all(f"\n  {job} " in done.stdout for job in ("rl", "compare", *JOBS))
    assert run("--version", cwd=tmp_path).stdout == f"contraux {contraux.__version__}\n"
    module = subprocess.run(
        [sys.executable, "-m", "contraux", "--version"], capture_output=True, text=True, cwd=tmp_path
    )
    assert module.stdout == f"contraux {contraux.__version__}\n"


def groups_of(text):
    return {group.name for group in CONFIGS.iterdir() if re.search(f"^{group.name}: ", text, re.MULTILINE)}


@pytest.mark.parametrize("job", ["rl", "compare"])
def test_help_of_a_job_names_every_option(tmp_path, job):
    done = run(job, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for group in ("agent", "env", "objective", "loss", "sampler", "similarity", "augmentation", "experiment"):
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{group}: "))
        for option in (CONFIGS / group).glob("*.yaml"):
            assert option.stem in line.removeprefix(f"{group}: ").split(", ")
    assert re.search("^objective: .*, none, ", done.stdout, re.MULTILINE)
    assert "Examples" in done.stdout and "--cfg job" in done.stdout if job == "rl" else "compare.seeds" in done.stdout
    assert not groups_of(done.stdout) & {"data", "encoder", "method", "optimizer", "views"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("job", "groups"), [
    ("pretrain", ("method", "data", "encoder", "views", "optimizer", "loss", "sampler", "similarity")),
    ("evaluate", ()),
    ("record", ()),
])  # fmt: skip
def test_help_of_the_other_jobs(tmp_path, job, groups):
    done = run(job, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for group in groups:
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{group}: "))
        for option in (CONFIGS / group).glob("*.yaml"):
            assert option.stem in line.removeprefix(f"{group}: ").split(", ")
    assert groups_of(done.stdout) == set(groups)
    assert "Examples" in done.stdout and f"contraux {job} " in done.stdout
    assert not list(tmp_path.iterdir())


def test_cfg_job_shows_what_the_line_says(tmp_path):
    parts = ["sampler=hardest", "sampler.k=7"]
    done = run("rl", "seed=3", "agent=dqn", "agent.tau=0.5", "env=Acrobot-v1", *parts, "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "seed: 3\n" in done.stdout and "tau: 0.5\n" in done.stdout
    assert "path: stable_baselines3.DQN" in done.stdout and "id: Acrobot-v1" in done.stdout
    assert "sampler:\n  _target_: contraux.core.samplers.Hardest\n  k: 7\n" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rll"], "unknown job 'rll': did you mean rl?"),
        (["train"], "unknown job 'train': did you mean pretrain?"),
        (["xyz"], f"unknown job 'xyz': there are {', '.join(sorted(JOBS))}"),
        (["rl", "encoder=small_cnn"], "encoder"),
        (["evaluate"], "checkpoint must be given: checkpoint=FOLDER"),
        (["evaluate", "checkpoint=./nowhere"], "nowhere"),
        (["pretrain", "epoch=3"], "unknown key 'epoch': did you mean epochs?"),
        (["pretrain", "encoder=timm"], "encoder.name must be given"),
        (
            ["pretrain", "views.x=1"],
            "unknown key 'views.x', for no option of views is chosen: write views=NAME first, one",
        ),
        (["pretrain", "encoder.out=8", "views=cifar"], "write encoder=NAME first, one of impala, mlp, nature"),
        (["pretrain", "views=shift", "views.firts=1"], "unknown key 'views.firts': did you mean views.first"),
        (["pretrain", "encder=nature"], "unknown key 'encder': did you mean encoder?"),
        (["pretrain", "views=null"], "views must be the name of an option, got null: leave it out for the default, or"),
        (
            ["pretrain", "trainer=null"],
            "trainer must keep its keys, got 'trainer=null': set trainer.KEY=VALUE, of epochs",
        ),
        (["evaluate", "checkpoint=runs", "data.path=x"], "write data=NAME first, one of arrays, cifar10"),
        (["rl", "sampler.k=3"], "write sampler=NAME first, one of bandit"),
        (
            ["rl", "encoder=null"],
            "encoder must keep its keys, got 'encoder=null': set encoder.KEY=VALUE, of checkpoint",
        ),
        (
            ["rl", "evaluation=null"],
            "evaluation must keep its keys, got null: evaluation.every=null evaluates at the end",
        ),
        (
            ["rl", "checkpoint=false"],
            "checkpoint must keep its keys, got False: checkpoint.every=null saves at the end",
        ),
        (["rl", "auxiliary=null"], "auxiliary must keep its keys, got null: objective=none trains without one"),
        (
            ["rl", "encoder.checkpoint=there", "encoder.mode=frozen"],
            "objective=none trains without an auxiliary, encoder",
        ),
        (["rl", "encoder.mode=slow"], "encoder.mode=slow needs a pretrained encoder: encoder.checkpoint=FOLDER"),
        (["rl", "sead=1"], "unknown key 'sead': did you mean seed?"),
        (["rl", "n_epoch=1"], "unknown key 'n_epoch': did you mean agent.n_epochs?"),
        (["rl", "agent.n_epoch=1"], "unknown key 'agent.n_epoch': did you mean agent.n_epochs?"),
        (["rl", "agent=dqn", "agent.tua=1"], "unknown key 'agent.tua': did you mean agent.tau?"),
        (["rl", "objective.sorce.k=2"], "unknown key 'objective.sorce.k': did you mean objective.source.k?"),
        (["rl", "agent.policy_kwargs={net_arch: [8]}"], "+agent.policy_kwargs.NAME=VALUE"),
        (["rl", "env.kwargs.gravity=1"], "env.kwargs takes any entry, with a + before it: +env.kwargs.NAME=VALUE"),
        (["rl", "agent=poo"], "unknown agent option 'poo': did you mean ppo?"),
        (["rl", "objective=crul"], "unknown objective option 'crul': did you mean curl?"),
        (["rl", "-m", "objective=curl,crul"], "unknown objective option 'crul': did you mean curl?"),
        (["rl", "experiment=zzz"], f"unknown experiment option 'zzz': there are {', '.join(EXPERIMENTS)}"),
        (["rl", "env=CartPol-v1"], "the nearest are CartPole-v1"),
        (["rl", "env=cartpol"], "the nearest are cartpole"),
        (["rl", "env=CartPole-v1,ALE/Pong-v5", "-m"], "a sweep over env must not mix ALE/ ids with others"),
        (["rl", "env=gym"], "env.id must be given: env.id=…"),
        (["rl", "seed=x"], "seed must be a whole number >= 0, got 'x'"),
        (["rl", "steps=0"], "steps must be a whole number >= 1, got 0"),
        (["rl", "weight=-1"], "weight must be a number >= 0, got -1"),
        (["rl", "weight=inf"], "weight must be a finite number >= 0, got inf"),
        (["rl", "auxiliary.mode=both"], "unknown mode 'both'"),
        (["rl", "agent.n_epochs=few"], "agent.n_epochs must be a number, got 'few'"),
        (["rl", "+agent.momentum=1"], "PPO takes no argument 'momentum'"),
        (["rl", "agent=sac"], "SAC: The algorithm only supports"),
        (["rl", "resume=nowhere"], "resume must be a run folder, which has a config.yaml, got 'nowhere'"),
        (["rl", "seed=a=b"], "cannot read 'seed=a=b'"),
        (["rl", "sampler=hardst"], "unknown sampler option 'hardst': did you mean hardest"),
        (["rl", "loss=vicreg"], "Contrastive needs a loss of a similarity matrix, got vicreg, which compares rows"),
        (["rl", "loss=triplet", "objective.module.temperature=0.3"], "triplet has no temperature: it must be None"),
        (["rl", "loss=triplet", "++objective.module.temperature=0.3"], "triplet has no temperature: it must be None"),
        (
            ["rl", "objective=curl", "similarity=bilinear", "objective.module.similarity.dim=64"],
            "similarity=NAME replaces objective.module.similarity wholly: set similarity.KEY, got",
        ),
        (["rl", "sampler=hardest", "sampler.kk=1"], "unknown key 'sampler.kk': did you mean sampler.k?"),
        (["rl", "loss=nt_xent", "steps=64"], "nt_xent compares every view with every view: queries must be the keys"),
        (["rl", "sampler=cancel_by_label", "steps=64"], "CancelByLabel needs 'label' in the context of the pairs"),
        (["rl", "objective=none", "sampler=hardest"], "needs an objective that has a sampler, got no objective"),
        (["compare"], "compare needs experiment=NAME"),
        (["compare", "experiment=noisy_cartpole", "compare.seeds=none"], "compare.seeds must be a whole number >= 1"),
        (["compare", "experiment=noisy_cartpole", "-m"], "make each value of a sweep an arm"),
        (["compare", "experiment=noisy_cartpole", "+compare.arms.b=['sead=1']"], "unknown key 'sead'"),
        (["compare", "experiment=noisy_cartpole", "+compare.arms.b=objective"], "compare.arms.b must be a list"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, contraux_rl, words, sentence):
    done = contraux_rl.run(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert done.stderr.startswith("contraux: ") and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr and not done.stdout


def test_a_run_folder_from_elsewhere_is_shown_to_be_code(tmp_path):
    config = {"seed": 0, "env": {"_target_": "os.system", "command": "touch owned"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = run("rl", f"resume={tmp_path}", cwd=tmp_path)
    assert done.returncode == 2
    assert "would run os.system, which is neither contraux's nor" in done.stderr
    config["env"] = {"_target_": "hydra.utils.get_class", "path": "evil.Class"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert "would run evil.Class" in run("rl", f"resume={tmp_path}", cwd=tmp_path).stderr
    assert not (tmp_path / "owned").exists()


def test_full_error_shows_the_traceback(tmp_path):
    done = run("rl", "sead=1", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr and "sead" in done.stderr


def test_parts_of_an_objective_by_name_are_what_trains(tmp_path):
    short = ["steps=128", "agent.n_steps=32", "evaluation.episodes=1", "threads=1", "hydra.run.dir=run"]
    parts = ["loss=decoupled", "sampler=bandit", "sampler.warmup=1", "sampler.interval=1", "similarity=cosine"]
    done = run("rl", "objective=curl", *parts, *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["sampler"]["_target_"] == "contraux.core.samplers.Bandit" and config["sampler"]["interval"] == 1
    assert config["loss"]["_target_"] == "contraux.core.losses.decoupled"
    ran = yaml.safe_load((tmp_path / "run" / "objective.yaml").read_text())["module"]
    assert {part: ran[part] for part in ("loss", "sampler")} == {part: config[part] for part in ("loss", "sampler")}
    assert ran["similarity"]["_target_"] == "contraux.core.similarity.cosine" and "dim" not in ran["similarity"]
    progress = (tmp_path / "run" / "progress.csv").read_text().splitlines()
    assert "sampler/arm" in progress[0]
    done = run("rl", "resume=run", "steps=512", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "run" / "objective.yaml").read_text())["module"] == ran
    done = run("rl", "resume=run", "steps=512", "sampler=hardest", cwd=tmp_path)
    assert done.returncode == 2 and "a resumed run keeps its settings" in done.stderr


def test_parts_of_an_objective_in_the_arms_of_a_comparison(tmp_path):
    short = ["steps=256", "agent.n_steps=32", "agent.n_epochs=1", "evaluation.episodes=1", "hydra/launcher=basic"]
    arms = "+compare.arms={base: ['objective=none'], hard: ['sampler=hardest', 'sampler.k=3', 'loss=triplet']}"
    words = ["compare", "compare.name=parts", arms, "compare.seeds=1", *short]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    runs = tmp_path / "runs" / "compare" / "parts"
    ran = yaml.safe_load((runs / "hard" / "seed_0" / "objective.yaml").read_text())["module"]
    assert ran["sampler"] == {"_target_": "contraux.core.samplers.Hardest", "k": 3}
    assert ran["loss"]["_target_"] == "contraux.core.losses.triplet" and ran["temperature"] is None
    assert not (runs / "base" / "seed_0" / "objective.yaml").exists()
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0 and "2 of 2 runs are done already" in done.stdout


def query(line, cwd):
    done = run("-sc", "query=bash", cwd=cwd, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("contraux ", [*JOBS, "--help", "--version"]),
        ("contraux comp", ["compare", "compare-gan", "compare-diffusion"]),
        ("contraux --v", ["--version"]),
        ("contraux zzz ", []),
        ("contraux pretrain method=moco", ["method=moco", "method=moco_v1", "method=mocov3"]),
        ("contraux rl agent=p", ["agent=ppo"]),
        ("contraux rl objective=n", ["objective=none"]),
        ("contraux rl sampler=hard", ["sampler=hardest", "sampler=hardness"]),
        ("contraux rl agent=dqn agent.expl", [
            "agent.exploration_final_eps=", "agent.exploration_fraction=", "agent.exploration_initial_eps="
        ]),
        ("contraux compare experiment=", [f"experiment={name}" for name in EXPERIMENTS]),
    ],
)  # fmt: skip
def test_completion(tmp_path, line, choices):
    found = query(line, tmp_path)
    start = line.split(" ")[-1]
    assert [choice for choice in found if choice.startswith(start)] == choices


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_in_bash(tmp_path):
    script = """
    eval "$(contraux -sc install=bash)"
    complete -p contraux
    COMP_LINE="contraux rl env=noisy_c"; COMP_POINT=${#COMP_LINE}; COMP_CWORD=2
    hydra_bash_completion
    echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    installed, completed = done.stdout.splitlines()
    assert "hydra_bash_completion contraux" in installed
    assert completed == "env=noisy_cartpole"
