"""`contraux rl` with objectives that look at sequences and at feature maps, as a user runs it."""

import csv
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from contraux.agents import ContrastivePPO

TINY = ["env.n_envs=2", "threads=1", "evaluation.episodes=1", "agent.n_steps=32", "agent.batch_size=32"]
TINY += ["agent.n_epochs=1", "steps=128", "tensorboard=false"]
BALL = ["env=gym", "env.id={_target_: hydra.utils.get_object, path: sb3_hosts.Ball}", "+env.kwargs.size=44"]


@pytest.fixture
def rl(contraux_rl, tmp_path):
    support = str(Path(__file__).parents[1] / "support")
    return lambda *words: contraux_rl.run("rl", *TINY, *words, cwd=tmp_path, PYTHONPATH=support)


@pytest.mark.parametrize(
    ("words", "metric"),
    [
        (["objective=cpc", "auxiliary.k=2", "sampler=hardest", "sampler.k=4"], "auxiliary/accuracy_last"),
        ([*BALL, "objective=stdim"], "auxiliary/accuracy_local"),
    ],
    ids=["cpc", "stdim"],
)
def test_a_run(rl, tmp_path, words, metric):
    done = rl(*words)
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("runs/rl/*")
    with (run / "progress.csv").open(newline="") as file:
        assert 0 <= float(list(csv.DictReader(file))[-1][metric]) <= 1
    auxiliary = ContrastivePPO.load(run / "checkpoint" / "model.zip").auxiliary
    assert auxiliary is not None
    objective = OmegaConf.load(run / "objective.yaml")
    if "cpc" in words[0]:
        assert OmegaConf.to_container(objective.module.sampler)["k"] == 4
        assert objective.source.k == 2
        (step,) = auxiliary.state()[1]["encoders"]
        assert auxiliary.state()[0][f"{step}/module.prediction.weight"].shape == (2 * 64, 256)  # follows the source


def test_stdim_on_vectors_says_why_not(rl):
    done = rl("objective=stdim")
    assert done.returncode != 0
    (sentence,) = (line for line in done.stderr.splitlines() if line.strip())
    assert "ST-DIM needs an encoder in which a module's output is a map" in sentence
    assert "choose objective=temporal or objective=cpc" in sentence
