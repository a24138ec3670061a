"""`contraux pretrain` as a user meets it: killed, resumed, stopped, swept, on two processes, and evaluated."""

import csv
import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from contraux.core.encoders import load_encoder

SMALL = ["batch_size=128", "threads=1", "evaluation=false", "pictures=false", "device=cpu"]


def losses(run):
    with (run / "progress.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def rows(run):
    path = run / "progress.csv"
    return max(len(path.read_text().splitlines()) - 1, 0) if path.exists() else 0


def test_a_run_leaves_an_encoder_pictures_and_a_table(tmp_path, contraux):
    done = contraux.run("pretrain", "epochs=2", "hydra.run.dir=run", "threads=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "linear_1_shot" in done.stdout and "knn" in done.stdout
    assert "run/encoder" in done.stdout
    run = tmp_path / "run"
    assert not (run / "checkpoint").exists()
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["step"] == result["steps"] == rows(run) == 2 * (1258 // 256)
    assert result["last"]["loss"] == losses(run)[-1]
    for name in ("views.png", "embedding.png"):
        assert Image.open(run / name).size[0] > 300
    encoder = load_encoder(run)
    assert encoder.metadata["method"] == "SimCLR"
    assert encoder.input_shape == (1, 8, 8)
    assert encoder(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape == (2, 128)
    again = contraux.run("pretrain", "epochs=2", "hydra.run.dir=run", cwd=tmp_path)
    assert again.returncode == 2
    assert "run already holds a run, which is completed: give another hydra.run.dir" in again.stderr


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_killed_at_any_step_and_resumed_the_run_is_the_uninterrupted_one(tmp_path, contraux, method):
    line = ["pretrain", f"method={method}", "epochs=6", *SMALL, "trainer.log_every=1"]
    whole = contraux.run(*line, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    line.append("trainer.checkpoint_every=4")
    process = contraux.start(*line, "hydra.run.dir=killed", cwd=tmp_path)
    process.wait_until(lambda: rows(tmp_path / "killed") >= 10)
    process.kill(signal.SIGKILL)
    process.wait()
    assert rows(tmp_path / "killed") < 54
    wait = ["trainer.log_every=1", "trainer.checkpoint_every=7"]
    process = contraux.start("pretrain", "resume=killed", *wait, cwd=tmp_path)  # and once more, at another step
    process.wait_until(lambda: rows(tmp_path / "killed") >= 23)
    process.kill(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = contraux.run("pretrain", "resume=killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, other = tmp_path / "whole", tmp_path / "killed"
    assert (one / "progress.csv").read_bytes() == (other / "progress.csv").read_bytes()
    weights, same = (load_file(run / "encoder" / "model.safetensors") for run in (one, other))
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    again = contraux.run("pretrain", "resume=killed", cwd=tmp_path)
    assert again.returncode == 2 and "is completed" in again.stderr


def test_a_signal_ends_it_with_a_checkpoint(tmp_path, contraux):
    line = ["pretrain", "epochs=200", *SMALL, "hydra.run.dir=run", "trainer.log_every=1"]
    process = contraux.start(*line, cwd=tmp_path)
    process.wait_until(lambda: rows(tmp_path / "run") >= 3)
    process.kill(signal.SIGINT)
    assert process.wait(60) == 130
    assert "stopped by SIGINT" in process.stdout and "contraux pretrain resume=run" in process.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert result["step"] == rows(tmp_path / "run")


def test_two_processes_follow_the_curve_of_one(tmp_path, contraux):
    """Two gloo processes of 64 rows and one of 128: an encoder without batch statistics, whose gradients are summed."""
    line = ["epochs=3", *SMALL, "encoder=small_cnn", "encoder.norm=group", "method.projection.batch_norm=false"]
    line += ["data._target_=downloads.fetched"]  # by the first process alone
    line += ["optimizer=sgd", "optimizer.lr=0.002"]  # Adam and large rates enlarge rounding; a gradient 0.5 % off shows
    done = contraux.run("pretrain", *line, "hydra.run.dir=one", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = contraux.together(2, "pretrain", *line, "hydra.run.dir=two", cwd=tmp_path)
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    assert not any("FutureWarning" in process.stderr for process in done)
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["processes"] == 2
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 27
    assert two == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_sweep_may_differ_in_what_accelerate_keeps_for_the_process(tmp_path, contraux, processes):
    line = ["epochs=1", *SMALL, "encoder=small_cnn", "trainer.precision=bf16,no", "hydra.sweep.dir=sweep"]
    done = contraux.together(processes, "pretrain", "-m", *line, cwd=tmp_path)
    assert [process.returncode for process in done] == [0] * processes, done[0].stderr + done[-1].stderr
    results = [json.loads((tmp_path / "sweep" / run / "result.json").read_text()) for run in "01"]
    assert [(result["status"], result["processes"]) for result in results] == [("completed", processes)] * 2
    assert results[0]["last"]["loss"] != results[1]["last"]["loss"]


def test_parts_by_name_and_what_does_not_fit(tmp_path, contraux):
    done = contraux.run(
        "pretrain", "epochs=1", *SMALL, "loss=decoupled", "sampler=hardest", "sampler.k=16", "hydra.run.dir=a",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32))
    for words, sentence in [
        (["method=simclr", "loss=vicreg"], "Contrastive needs a loss of a similarity matrix"),
        (["epochs=0"], "epochs must be a whole number >= 1, got 0"),
        (["method=simclrr"], "did you mean simclr"),
        (["batch_size=4000"], "batch_size x accumulate must be at most the 1258 examples"),
        (["trainer.presicion=bf16"], "did you mean trainer.precision"),
        (["optimizer.lr=1e40"], "the learning rate must be small enough for steps that are float32 numbers, got "),
        (["method=supcon", "data=arrays", "data.inputs=rows.npy"], "SupCon needs data with one class for each example"),
        (["optimizer.lr=abc"], "the optimizer cannot be made of these settings"),
        (["data=folder", "data.path=nowhere"], "nowhere"),
        (["resume=nowhere"], "resume must be a run folder"),
    ]:
        done = contraux.run("pretrain", *SMALL, *words, cwd=tmp_path)
        assert done.returncode == 2, (words, done.stderr)
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_a_resumed_config_that_names_foreign_code_is_shown_first(tmp_path, contraux):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("optimizer:\n  _target_: os.system\n  command: touch broken\n")
    done = contraux.run("pretrain", "resume=run", cwd=tmp_path)
    assert done.returncode == 2
    assert "would run os.system" in done.stderr
    assert not (tmp_path / "broken").exists()
