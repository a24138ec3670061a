"""Files that a resumed run goes on with, and the picture of a comparison."""

import csv

import numpy as np
import pytest
from stable_baselines3.common.callbacks import EvalCallback

from contraux.agents.curves import band, draw
from contraux.agents.environments import make
from contraux.agents.recording import Episodes, go_on_with_evaluations, progress_logger
from contraux.core.files import keep_rows
from contraux.core.provenance import git_revision, versions


def log(logger, step, **values):
    logger.record("time/total_timesteps", step)
    for name, value in values.items():
        logger.record(f"train/{name}", value)
    logger.dump(step)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_progress_goes_on_after_the_checkpoint_and_takes_new_columns(tmp_path):
    first = progress_logger(tmp_path, tensorboard=False)
    for step in (10, 20, 30):
        log(first, step, loss=step / 10)
    first.close()
    again = progress_logger(tmp_path, tensorboard=False, until=20)
    log(again, 25, loss=2.5, accuracy=0.5)
    again.close()
    found = rows(tmp_path / "progress.csv")
    assert [row["time/total_timesteps"] for row in found] == ["10", "20", "25"]
    assert [row["train/loss"] for row in found] == ["1.0", "2.0", "2.5"]
    assert [row["train/accuracy"] for row in found] == ["", "", "0.5"]
    log(progress_logger(tmp_path, tensorboard=False), 5, loss=0.0)
    assert len(rows(tmp_path / "progress.csv")) == 1  # a new run begins anew


def test_episodes_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "episodes.csv"
    episodes = Episodes(path)
    for step, value in ((10, 1.5), (20, 2.5), (20, 3.5), (30, 4.5)):
        episodes.num_timesteps = step
        episodes.locals = {"infos": [{}, {"episode": {"r": value, "l": 4}}]}
        assert episodes._on_step()
    Episodes(path, until=20)
    assert [row["return"] for row in rows(path)] == ["1.5", "2.5", "3.5"]
    keep_rows(tmp_path / "missing.csv", "step", 3)
    assert not (tmp_path / "missing.csv").exists()


def test_evaluations_up_to_the_checkpoint_are_written_again(tmp_path):
    path = tmp_path / "evaluations.npz"
    np.savez(path, timesteps=[5, 10], results=[[1.0, 2.0], [3.0, 4.0]], ep_lengths=[[1, 2], [3, 4]])
    callback = EvalCallback(make("CartPole-v1", seed=0), log_path=str(tmp_path))
    go_on_with_evaluations(callback, path, until=5)
    assert callback.evaluations_timesteps == [5] and callback.evaluations_results == [[1.0, 2.0]]


def test_provenance(tmp_path):
    found = versions()
    assert found["libraries"]["stable-baselines3"] and found["libraries"]["contraux"]
    assert git_revision(tmp_path) is None


def test_band_and_picture(tmp_path):
    curves = np.array([[np.nan, 1.0, 2.0], [np.nan, 3.0, 2.0], [np.nan, np.nan, 2.0]])
    low, high = band(curves)
    assert np.isnan([low[0], high[0]]).all()
    assert 1.0 <= low[1] < 2.0 < high[1] <= 3.0
    assert low[2] == high[2] == 2.0
    draw({"base": curves, "none yet": np.full((1, 3), np.nan)}, np.array([1.0, 2.0, 3.0]), "t", tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("runs", [20, 80])
def test_band_is_as_wide_as_the_normal_interval_of_the_mean(runs):
    low, high = band(np.random.default_rng(0).normal(size=(runs, 100)))
    assert (high - low).mean() == pytest.approx(2 * 1.96 / np.sqrt(runs), rel=0.1)
