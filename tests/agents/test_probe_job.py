"""`contraux probe` end to end on tiny settings: figures, resuming, saved agents and encoders, and mistakes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from stable_baselines3 import PPO

from contraux.__main__ import main
from contraux.agents.environments import make
from contraux.agents.probe.report import as_markdown, collect, difference, findings, mean, notes, rows, values
from contraux.core.encoders import load_encoder

SMALL = ["threads=1", "device=cpu", "folder=out"]
TINY = [
    "frames=480", "seeds=1", "env.n_envs=6", "features_dim=16", "pixels=6",
    "train.frames=160", "train.steps=3", "train.batch_size=16", "probe.max_iter=5", "probe.c=[0.1]",
    "supervised.steps=3", "supervised.every=3", "supervised.batch_size=8",
]  # fmt: skip


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch, capsys):
    """`contraux probe …` in this process, where imports are done; one test below starts a process of its own."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["contraux", "probe", *SMALL, *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # put back afterwards
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            GlobalHydra.instance().clear()
        return Done(code, *capsys.readouterr())

    return call


def test_boxing_from_an_objective_an_agent_and_the_baselines_then_resumed(run):
    env = make("ALE/Boxing-v5", seed=0, kwargs={"frameskip": 1}, frame_stack=4, atari=True)
    agent = PPO(
        "CnnPolicy",
        env,
        n_steps=8,
        batch_size=8,
        device="cpu",
        policy_kwargs={"features_extractor_kwargs": {"features_dim": 24}},
    )
    agent.save("agent.zip")
    words = [
        "env=ALE/Boxing-v5",
        "encoders={shifted: curl, still: [temporal, 'module.temperature=0.2'], agent: agent.zip}",
        "layer=both",
        "save_encoders=true",
        *TINY,
    ]
    done = run(*words)
    assert done.returncode == 0, done.stderr
    folder = Path("out")
    cells = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("cells/Boxing-v5/*/seed_0.json")}
    assert set(cells) == {"shifted", "still", "agent", "random", "supervised", "pixels"}
    for name, cell in cells.items():
        assert set(cell["layers"]) == ({"before_relu"} if name == "pixels" else {"before_relu", "after_relu"}), name
        for variables in cell["layers"].values():
            assert {own["name"] for own in variables} == set(cell["data"]["variables"])
            for own in variables:
                assert 0 <= own["macro_f1"] <= 1 and 0 <= own["accuracy"] <= 1 and own["r2"] <= 1
    assert {"player_x", "player_y", "enemy_x", "enemy_y"} <= set(cells["random"]["data"]["variables"])
    assert cells["agent"]["features"] == 24 and cells["pixels"]["features"] == 36 and cells["still"]["features"] == 16
    assert sum(cells["random"]["data"]["episodes"]) == 6
    assert cells["shifted"]["settings"]["objective"]["source"]["k"] == 0
    table = (folder / "table.md").read_text()
    assert "| shifted after ReLU |" in table and "macro-F1 / R²" in table and "agent localization" in table
    assert "classifiers had not converged" in table and "too few seeds to tell" in table
    assert json.loads((folder / "results.json").read_text())["reference"] == "random"
    assert (folder / "probes.png").stat().st_size > 10_000

    encoder = load_encoder(folder / "cells/Boxing-v5/still/seed_0")
    assert encoder.input_shape == (4, 84, 84) and encoder.out_features == 16
    assert not (folder / "cells/Boxing-v5/agent/seed_0" / "encoder").exists()

    shutil.rmtree(folder / "cells/Boxing-v5/random")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/*/*.json")}
    words[1] = "encoders={shifted: curl, still: [temporal, 'module.temperature=0.2'], agent: agent.zip, \
again: 'out/cells/Boxing-v5/still/seed_{seed}'}"
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert "5 of 7 probes are done already" in done.stdout
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    repeated = json.loads((folder / "cells/Boxing-v5/random/seed_0.json").read_text())
    assert repeated["layers"] == cells["random"]["layers"], "the same seed sees the same frames and weights"
    again = json.loads((folder / "cells/Boxing-v5/again/seed_0.json").read_text())
    for one, other in zip(again["layers"]["before_relu"], cells["still"]["layers"]["before_relu"], strict=True):
        assert one["r2"] == pytest.approx(other["r2"], abs=1e-3), "a saved encoder is the one that was trained"

    words[words.index("probe.max_iter=5")] = "probe.max_iter=6"
    done = run(*words)
    assert done.returncode == 2 and "was made with another probe: give another folder" in done.stderr


def test_the_state_behind_noisy_observations_while_an_agent_plays(run):
    env = make("contraux/NoisyCartPole-v1", seed=0, kwargs={"noise_dim": 60, "rotation_seed": 0})
    agent = PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu")
    with torch.no_grad():
        agent.policy.action_net.bias[0] = 1e3  # always to the left, and the pole falls within 11 steps
    agent.save("left.zip")
    done = run(
        "env=noisy_cartpole", "labels=attribute.state", "encoders=temporal", "baselines=[random]", "player=left.zip",
        "epsilon=0", "frames=800", "seeds=1", "features_dim=16", "train.frames=400", "train.steps=5", "probe.bins=4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (cell,) = [json.loads(path.read_text()) for path in Path("out").glob("cells/*/temporal/seed_0.json")]
    assert [own["name"] for own in cell["layers"]["before_relu"]] == ["state_0", "state_1", "state_2", "state_3"]
    assert {own["category"] for own in cell["layers"]["before_relu"]} == {"state"}
    assert cell["settings"]["player"] == "left.zip"
    assert sum(cell["data"]["episodes"]) > 800 / 11, "those of a random player last about 20 steps"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["encoders=crul"], "there is no 'crul': did you mean curl?"),
        (["games=[Pang]"], "env must be an option or an id Gymnasium knows, got 'ALE/Pang-v5'"),
        (["labels=rom"], "labels must be one of ram, info.KEY, observation.LEAF, attribute.PATH, got 'rom'"),
        (["env=CartPole-v1"], "unknown game with annotated RAM 'cartpole'"),
        (["player=nobody"], "an agent must be a run of contraux rl or a Stable-Baselines3 .zip, got 'nobody'"),
        (["reference=majority"], "reference must be one of the encoders, random, supervised, pixels, got 'majority'"),
        (["layer=middle"], "unknown layer 'middle'"),
        (["train.step=3"], "did you mean train.steps"),
        (["env=CartPole-v1", "labels=attribute.state", "frames=20"], "a split by episode needs an episode for each"),
    ],
)
def test_a_mistake_is_one_sentence(run, words, sentence):
    done = run(*words)
    assert done.returncode == 2 and sentence in done.stderr, done.stderr
    assert done.stderr.startswith("contraux: ") and len(done.stderr.strip().splitlines()) == 1


def test_a_sweep_is_refused(run):
    done = run("seeds=1,2", "-m")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("contraux: probe repeats by itself, got -m: give games=")


def test_help_names_what_one_gives_in_a_process_of_its_own():
    words = [sys.executable, "-m", "contraux", "probe", "--help"]
    text = subprocess.run(words, capture_output=True, text=True, timeout=300).stdout
    for word in ("encoders=", "baselines=", "games=", "labels=ram", "study", "folder=FOLDER", "Examples"):
        assert word in text


# --- tables -----------------------------------------------------------------------------------------------------------


def cell(env, arm, seed, f1, r2, converged=1.0):
    return {
        "env": env, "arm": arm, "seed": seed, "training": {}, "seconds": {"training_cpu": 1.0, "probing_cpu": 2.0},
        "data": {"frames": [7, 1, 2], "episodes": [3, 1, 1], "duplicates": [0, 4], "dropped": {"clock": 0.1},
                 "constant": []},
        "layers": {
            "before_relu": [
                {"name": "x", "category": "agent", "macro_f1": f1, "weighted_f1": f1, "accuracy": f1, "r2": r2,
                 "converged": converged},
                {"name": "y", "category": "other", "macro_f1": f1 + 0.2, "weighted_f1": f1, "accuracy": f1,
                 "r2": r2 - 1, "converged": 1.0},
            ]
        },
    }  # fmt: skip


def results():
    cells = [cell(env, "random", seed, 0.1 + 0.01 * seed, 0.5) for env in ("Pong", "Boxing") for seed in range(3)]
    cells += [cell(env, "good", seed, 0.3 + 0.01 * seed, 0.2) for env in ("Pong", "Boxing") for seed in range(3)]
    cells += [cell("Pong", "late", 1, 0.2, 0.5, converged=0.0)]
    return collect(cells, "random")


def test_means_are_over_variables_and_differences_are_paired():
    found = results()
    own = found.cells["good"]["Pong", 2]
    assert mean(own, "macro_f1") == pytest.approx(0.42) and mean(own, "r2") == pytest.approx(-0.3)
    assert mean(own, "macro_f1", "agent") == pytest.approx(0.32) and mean(own, "macro_f1", "none") is None
    pong = difference(values(found, "good", "macro_f1", "Pong"), values(found, "random", "macro_f1", "Pong"))
    assert pong.mean == pytest.approx(0.2) and pong.pairs == pong.up == 3 and pong.finding == "too few seeds to tell"
    everything = difference(values(found, "good", "r2"), values(found, "random", "r2"))
    assert everything.mean == pytest.approx(-0.3) and everything.pairs == 6 and everything.finding == "lower"
    assert difference(values(found, "late", "r2"), values(found, "random", "r2")).pairs == 1
    (row,) = [row for row in rows(found, "Pong") if row[0] == "good"]
    assert row[1:4] == ["0.410 ± 0.010", "+0.200 [0.200, 0.200]", "3/3"] and row[-1] == "3"


def test_what_is_said_is_said_of_good_and_bad():
    found = results()
    said = findings(found)
    assert "all games and seeds as pairs, macro-F1 against random, higher: good" in said
    assert "all games and seeds as pairs, R² against random, lower: good" in said
    assert any("late: 1 of 2 classifiers had not converged" in note for note in notes(found))
    assert any("Variables of too little entropy: clock" in note for note in notes(found))
    page = as_markdown(found)
    assert page.count("| late |") == 5 and "## All games" in page
    assert np.isfinite(mean(found.cells["late"]["Pong", 1], "r2"))
