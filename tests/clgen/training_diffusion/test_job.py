"""`contraux diffusion` as a user meets it: killed, resumed, stopped, on two processes, and evaluated."""

import csv
import json
import signal

import pytest
import torch
from launcher import Launcher
from PIL import Image
from safetensors.torch import load_file

SMALL = [
    "batch_size=8", "threads=1", "device=cpu", "model.channels=[8,8]", "model.groups=4", "model.layers=1",
    "model.attention=0", "samples.sampling_steps=2",
]  # fmt: skip
DIT = ["model=dit", "model.layers=2", "model.heads=2", "model.head_dim=8", "scheduler=flow", "conditional=true"]
PLAIN = ["batch_size=8", "threads=1", "device=cpu", "samples.sampling_steps=2"]
NOTHING = "evaluation=null"


@pytest.fixture(scope="module")
def contraux(tmp_path_factory):
    """With a server that has imported diffusers, which takes longer than most tests here."""
    modules = ("contraux.clgen.training_diffusion.job", "diffusers_parts")
    with Launcher(tmp_path_factory.mktemp("streams"), *modules) as launcher:
        yield launcher


def progress(run):
    with (run / "progress.csv").open() as file:
        return list(csv.DictReader(file))


def rows(run):
    path = run / "progress.csv"
    return max(len(path.read_text().splitlines()) - 1, 0) if path.exists() else 0


def test_a_run_leaves_a_pipeline_samples_a_picture_and_a_table(tmp_path, contraux):
    line = ["steps=30", *SMALL, "hydra.run.dir=run", "objective=time_infonce", "pairs.share=0.5", "samples.every=20"]
    line += ["evaluation.samples=64", "evaluation.sampling_steps=[2]", "evaluation.levels=[0.1]", "samples.count=10"]
    line += ["evaluation.images=100", "evaluation.extractors.classifier.steps=20"]
    done = contraux.run("diffusion", *line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    for words in (
        "auxiliary",
        "frechet/digits cnn in 2 steps",
        "probe at 0.1",
        "shifted error at 50, 100",
        "run/pipeline",
        "run/samples",
    ):
        assert words in done.stdout
    assert not (run / "checkpoint").exists()
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed" and result["places"] == {"features": "mid_block"}
    assert (result["model"], result["objective"], result["data"]) == ("unet", "TimeInfoNCE", "digits")
    assert result["step"] == result["steps"] == rows(run) == 30
    assert {"denoising_error", "shifted_error_50", "probe_0.1", "effective_rank_0.1"} <= set(result["metrics"])
    assert {"steps_2_frechet/digits_cnn", "steps_2_recall/random_cnn"} <= set(result["metrics"])
    quality = json.loads((run / "quality.json").read_text())["2"]
    assert quality["counts"]["fake"] == 64 and quality["floor"]["frechet/digits_cnn"]["mean"] > 0
    assert all(isinstance(value, float) for value in result["metrics"].values())
    last = {name: float(value) for name, value in progress(run)[-1].items() if name != "step"}
    assert last == result["last"] and {"loss", "denoising", "auxiliary", "paired"} < set(last)
    assert last["loss"] == pytest.approx(last["denoising"] + 0.05 * last["auxiliary"], abs=1e-5)
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["step_000020.png", "step_000030.png"]
    assert Image.open(run / "samples" / "step_000030.png").size == (91, 10)
    assert Image.open(run / "levels.png").size[0] > 300
    again = contraux.run("diffusion", *line, cwd=tmp_path)
    assert again.returncode == 2
    assert "run already holds a run, which is completed: give another hydra.run.dir" in again.stderr
    # and another from it, its curves beside these
    line = ["steps=2", *PLAIN, "model=folder", "model.path=run", "hydra.run.dir=more", "evaluation.samples=0"]
    line += ["evaluation.beside=run", "evaluation.images=100", "evaluation.levels=[0.1]"]
    done = contraux.run("diffusion", *line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(progress(tmp_path / "more")[0]["denoising"]) < 0.95  # it does not begin at random


@pytest.mark.parametrize(
    "line",
    [[*SMALL, "objective=time_infonce", "pairs.share=0.5"], [*PLAIN, *DIT, "objective=ordinal_snr"]],
    ids=["unet", "dit"],
)
def test_killed_at_any_step_and_resumed_the_run_is_the_uninterrupted_one(tmp_path, contraux, line):
    line = ["diffusion", "steps=90", *line, NOTHING, "samples.every=20", "trainer.log_every=1"]
    whole = contraux.run(*line, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = contraux.start(*line, "trainer.checkpoint_every=7", "hydra.run.dir=killed", cwd=tmp_path)
    process.wait_until(lambda: rows(tmp_path / "killed") >= 17)
    process.kill(signal.SIGKILL)
    process.wait()
    assert rows(tmp_path / "killed") < 90
    wait = ["trainer.log_every=1", "trainer.checkpoint_every=11"]
    process = contraux.start("diffusion", "resume=killed", *wait, cwd=tmp_path)  # and once more, at another step
    process.wait_until(lambda: rows(tmp_path / "killed") >= 39)
    process.kill(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = contraux.run("diffusion", "resume=killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, other = tmp_path / "whole", tmp_path / "killed"
    assert (one / "progress.csv").read_bytes() == (other / "progress.csv").read_bytes()
    part = "transformer" if (one / "pipeline" / "transformer").exists() else "unet"
    place = f"pipeline/{part}/diffusion_pytorch_model.safetensors"
    weights, same = (load_file(run / place) for run in (one, other))
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    last = "samples/step_000090.png"
    assert (one / last).read_bytes() == (other / last).read_bytes()
    again = contraux.run("diffusion", "resume=killed", cwd=tmp_path)
    assert again.returncode == 2 and "is completed" in again.stderr


def test_a_signal_ends_it_with_a_checkpoint(tmp_path, contraux):
    line = ["diffusion", "steps=20000", *SMALL, NOTHING, "hydra.run.dir=run", "trainer.log_every=1"]
    process = contraux.start(*line, cwd=tmp_path)
    process.wait_until(lambda: rows(tmp_path / "run") >= 3)
    process.kill(signal.SIGINT)
    assert process.wait(60) == 130
    assert "stopped by SIGINT" in process.stdout and "contraux diffusion resume=run" in process.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert result["step"] == rows(tmp_path / "run")


def test_two_processes_follow_the_curve_of_one(tmp_path, contraux):
    line = ["diffusion", "steps=12", *SMALL, NOTHING, "objective=time_infonce", "pairs.share=1.0", "weight=0.5"]
    line += ["optimizer._target_=torch.optim.SGD", "~optimizer.betas", "optimizer.lr=0.05"]  # Adam enlarges rounding
    done = contraux.run(*line, "hydra.run.dir=one", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = contraux.together(2, *line, "hydra.run.dir=two", cwd=tmp_path)
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    assert json.loads((tmp_path / "two" / "result.json").read_text())["processes"] == 2
    one, two = (progress(tmp_path / run) for run in ("one", "two"))
    for name in ("loss", "denoising", "auxiliary"):
        assert [float(row[name]) for row in two] == pytest.approx([float(row[name]) for row in one], abs=1e-4)
    weights, same = (load_file(next((tmp_path / run).glob("pipeline/unet/*.safetensors"))) for run in ("one", "two"))
    assert all(torch.allclose(weights[name], same[name], atol=1e-4) for name in weights)


def test_what_does_not_fit(tmp_path, contraux):
    for words, sentence in [
        (["steps=0"], "steps must be a whole number >= 1, got 0"),
        (["model=unett"], "did you mean unet"),
        (["scheduler=flow", "scheduler.prediction=epsilon"], "unknown key 'scheduler.prediction'"),
        (["scheduler.prediction=eps"], "unknown prediction 'eps': did you mean epsilon"),
        (["objective=time_infonc"], "did you mean time_infonce"),
        (["guidance=0.5"], "guidance must be a number >= 1, got 0.5"),
        (["evaluation.levels=[1.5]"], "levels must be a number in [0, 1), got 1.5"),
        (["model=folder", "model.path=nowhere"], "model.path must be a folder of diffusers"),
        (["at=mid_blok", "objective=time_infonce"], "did you mean mid_block"),
        (["optimizer.lr=1e40"], "the learning rate must be small enough"),
        (["size=9"], "the size of images must be a multiple of 2 for 2 levels, got 9"),
        (["resume=nowhere"], "resume must be a run folder"),
        # what the evaluation would find wrong is found before the training
        (["evaluation.beside=nowhere"], "evaluation.beside must be a finished run of contraux diffusion, got nowhere"),
    ]:
        done = contraux.run("diffusion", *PLAIN[:2], "device=cpu", *words, cwd=tmp_path)
        assert done.returncode == 2, (words, done.stderr)
        assert sentence in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr
        assert rows(next((tmp_path / "runs" / "diffusion").glob("*"), tmp_path)) == 0
