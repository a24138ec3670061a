"""MiniGrid as a vector, and a run with a bonus through the real command line, stopped and gone on with."""

import inspect
import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import yaml

import contraux
from contraux.agents.environments import group_override, make
from contraux.clrl.envs import OneHotGrid, minigrid
from contraux.clrl.exploration import NoveltyBonus

pytest.importorskip("minigrid")
CONFIGS = Path(contraux.__file__).parent / "configs" / "exploration"


def test_every_cell_says_what_it_is_and_nothing_is_lost():
    env = minigrid("MiniGrid-DoorKey-5x5-v0")
    vector, _ = env.reset(seed=0)
    plain, _ = gymnasium.make("MiniGrid-DoorKey-5x5-v0").reset(seed=0)
    assert vector.dtype == np.uint8 and vector.shape == env.observation_space.shape == (7 * 7 * 21,)
    cells = vector.reshape(7, 7, 21)
    back = np.stack([cells[..., :11].argmax(-1), cells[..., 11:17].argmax(-1), cells[..., 17:].argmax(-1)], axis=-1)
    np.testing.assert_array_equal(back, plain["image"])
    assert (cells.sum(-1) == 3).all()
    assert env.observation_space.contains(vector)


def test_two_environments_with_one_seed_agree_and_copies_differ():
    one, other = (make("contraux/MiniGrid-v1", seed=3, n_envs=4, kwargs={"task": "MiniGrid-MultiRoom-N2-S4-v0"})
                  for _ in range(2))  # fmt: skip
    first = one.reset()
    np.testing.assert_array_equal(first, other.reset())
    assert len(np.unique(first, axis=0)) > 1


def test_what_has_no_grid_or_no_name_is_refused():
    with pytest.raises(
        ValueError, match="task must be an id of MiniGrid, got 'MiniGrid-DorKey-8x8-v0': the nearest are"
    ):
        minigrid("MiniGrid-DorKey-8x8-v0")
    with pytest.raises(ValueError, match="OneHotGrid needs a Dict observation with an image of 3 numbers a cell"):
        OneHotGrid(gymnasium.make("CartPole-v1"))
    assert group_override("MiniGrid-Unlock-v0") == ["env=minigrid", "env.kwargs.task=MiniGrid-Unlock-v0"]


@pytest.mark.parametrize("name", ["episodic", "elliptical", "rnd"])
def test_a_name_and_its_file_make_the_same_bonus(name):
    """What the YAML says beside the bonus itself are the defaults of the callback, so that Python says the same."""
    node = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    callback = NoveltyBonus(name)
    for key in node.keys() - {"_target_", "bonus"}:
        assert getattr(callback, key) == node[key]
    settings = {key: value for key, value in node["bonus"].items() if not key.startswith("_")}
    assert callback.factory.keywords == settings
    defaults = inspect.signature(callback.factory.func).parameters
    assert {key: defaults[key].default for key in settings} == settings


def test_a_run_and_its_resumption(contraux_rl, tmp_path):
    words = [
        "env=MiniGrid-MultiRoom-N2-S4-v0", "exploration=rnd", "exploration.bonus.batch_size=64", "objective=none",
        "agent.n_steps=16", "env.n_envs=4", "evaluation.episodes=1", "evaluation.every=null", "threads=1",
        "hydra.run.dir=run",
    ]  # fmt: skip

    def finished(*line):
        done = contraux_rl.run("rl", *line, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "run" / "result.json").read_text())

    assert finished(*words, "steps=256")["status"] == "completed"
    result = finished("resume=run", "steps=512")
    assert result["taken_steps"] == 512 and result["resumed_at"] == 256
    rows = (tmp_path / "run" / "progress.csv").read_text().splitlines()
    assert "exploration/predictor_loss" in rows[0] and "exploration/reward" in rows[0]
    column = rows[0].split(",").index("exploration/deviation")
    deviations = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    assert len(deviations) == 8 and all(np.isfinite(deviations))
