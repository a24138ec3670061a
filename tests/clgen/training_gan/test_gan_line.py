"""`contraux gan` and `contraux sample` as a user meets them: killed, resumed, stopped, on two processes, sampled."""

import csv
import json
import signal

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from contraux.clgen.training_gan import load_generator

SMALL = [
    "batch_size=16", "images=64", "backbone=dcgan", "backbone.width=4", "backbone.latent=8", "threads=1", "device=cpu",
    "trainer.log_every=1", "evaluation=null",
]  # fmt: skip


def table(run):
    with (run / "progress.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def rows(run):
    path = run / "progress.csv"
    return max(len(path.read_text().splitlines()) - 1, 0) if path.exists() else 0


def test_a_run_leaves_players_pictures_and_a_table_and_can_be_sampled(tmp_path, contraux):
    line = [
        "gan",
        "steps=6",
        *SMALL,
        "trainer.sample_every=3",
        "conditional=true",
        "method=reacgan",
        "hydra.run.dir=run",
    ]
    done = contraux.run(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "run/samples.png" in done.stdout and "contraux sample checkpoint=run" in done.stdout
    run = tmp_path / "run"
    assert not (run / "checkpoint").exists()
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed" and result["step"] == result["steps"] == rows(run) == 6
    assert result["last"]["discriminator"] == table(run)[-1]["discriminator"]
    for name in ("real", "samples", "interpolation", "samples/step_000003", "samples/step_000006"):
        assert Image.open(run / f"{name}.png").size[0] == 10 * 17 + 1
    config = json.loads((run / "generator/config.json").read_text())
    assert config["metadata"]["at"] == {"features": "body"} and config["metadata"]["method"] == "ReACGAN"
    generator = load_generator(run)
    assert generator.classes == 10 and generator(torch.zeros(2, 8), torch.tensor([1, 2])).shape == (2, 1, 16, 16)

    done = contraux.run("sample", "checkpoint=run", "n=12", "out=fakes", "classes=[3,5]", "seed=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = sorted(path.relative_to(tmp_path / "fakes").as_posix() for path in (tmp_path / "fakes").rglob("*.png"))
    assert files == [f"{3 + 2 * (i % 2)}/{i:05d}.png" for i in sorted(range(12), key=lambda i: (i % 2, i))]
    again = contraux.run("sample", "checkpoint=run", "n=12", "out=fakes", cwd=tmp_path)
    assert again.returncode == 2 and "out must be an empty folder or a new one" in again.stderr
    for name, words in (("a", ["batch_size=5"]), ("b", []), ("c", ["ema=false"]), ("d", ["seed=7"])):
        done = contraux.run("sample", "checkpoint=run", "n=20", f"out={name}.png", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    a, b, c, d = (Image.open(tmp_path / f"{name}.png") for name in "abcd")
    assert a.size == (10 * 17 + 1, 2 * 17 + 1)
    assert max(abs(x - y) for x, y in zip(a.convert("L").tobytes(), b.convert("L").tobytes(), strict=True)) <= 1
    assert b.tobytes() != c.tobytes() and b.tobytes() != d.tobytes()
    again = contraux.run(*line, cwd=tmp_path)
    assert again.returncode == 2 and "already holds a run, which is completed" in again.stderr


@pytest.mark.parametrize(
    "words", [[], ["method=insgen", "adversarial=relativistic", "backbone=sndcgan", "augment=ada"]]
)
def test_killed_at_any_step_and_resumed_the_run_is_the_uninterrupted_one(tmp_path, contraux, words):
    line = ["gan", "steps=40", *SMALL, *words, "trainer.sample_every=null"]
    whole = contraux.run(*line, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = contraux.start(*line, "hydra.run.dir=killed", "trainer.checkpoint_every=4", cwd=tmp_path)
    process.wait_until(lambda: rows(tmp_path / "killed") >= 10)
    process.kill(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert rows(tmp_path / "killed") < 40
    done = contraux.run("gan", "resume=killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, other = tmp_path / "whole", tmp_path / "killed"
    assert (one / "progress.csv").read_bytes() == (other / "progress.csv").read_bytes()
    for part in ("generator", "generator_last", "discriminator"):
        weights, same = (load_file(run / part / "model.safetensors") for run in (one, other))
        assert weights.keys() == same.keys()
        assert all(torch.equal(weights[name], same[name]) for name in weights)
    again = contraux.run("gan", "resume=killed", cwd=tmp_path)
    assert again.returncode == 2 and "is completed" in again.stderr


def test_a_signal_ends_it_with_a_checkpoint_and_a_generator(tmp_path, contraux):
    process = contraux.start("gan", "steps=5000", *SMALL, "hydra.run.dir=run", cwd=tmp_path)
    process.wait_until(lambda: rows(tmp_path / "run") >= 3)
    process.kill(signal.SIGINT)
    assert process.wait(60) == 130
    assert "stopped by SIGINT" in process.stdout and "contraux gan resume=run" in process.stdout
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["status"] == "interrupted" and result["step"] == rows(tmp_path / "run")
    done = contraux.run("sample", "checkpoint=run", "n=4", "grid=true", "out=pictures", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "pictures/samples.png").size == (35, 35)


@pytest.mark.parametrize("words", [
    ["adversarial=non_saturating", "adversarial.r1=1"],
    ["adversarial=relativistic", "augment=ada", "augment.interval=1", "augment.images=200"],
    ["method=contrad", "augment=affine"],
])  # fmt: skip
def test_two_processes_follow_the_curve_of_one(tmp_path, contraux, words):
    """Two gloo processes of 8 rows and one of 16, of players without batch norm, whose gradients are averaged."""
    line = ["steps=6", *SMALL, "backbone._target_=unnormed.plain", *words, "~backbone.spectral_norm"]
    line += [f"optimizer.{player}._target_=torch.optim.SGD" for player in ("generator", "discriminator")]
    line += ["~optimizer.generator.betas", "~optimizer.discriminator.betas", "trainer.sample_every=null"]
    line += ["optimizer.generator.lr=0.1", "optimizer.discriminator.lr=0.1"]
    done = contraux.run("gan", *line, "hydra.run.dir=one", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = contraux.together(2, "gan", *line, "hydra.run.dir=two", cwd=tmp_path)
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    assert json.loads((tmp_path / "two/result.json").read_text())["processes"] == 2
    one, two = table(tmp_path / "one"), table(tmp_path / "two")
    assert len(one) == len(two) == 6
    for row, other in zip(one, two, strict=True):
        for name, value in row.items():  # a rank may change hands by rounding
            assert other[name] == pytest.approx(value, abs=0.07 if "accuracy" in name else 2e-5), name


def test_sentences(tmp_path, contraux):
    for words, sentence in [
        (["gan", "method=contrd"], "unknown method option 'contrd': did you mean contrad"),
        (
            ["gan", "method=null"],
            "method must be the name of an option, got null: leave it out for the default, or take",
        ),
        (["gan", "backbone.wdth=8"], "unknown key 'backbone.wdth': did you mean backbone.width"),
        (
            ["gan", "augment.policy=[color]"],
            "no option of augment is chosen: write augment=NAME first, one of ada, affine",
        ),
        (["gan", "size=24", *SMALL], "size must be one of 16, 32, 64, 128, got 24"),
        (["gan", "images=5000"], "images must be at most the 1258 of the data, got 5000"),
        (["gan", "at=boddy", "method=infomax", *SMALL], "did you mean body"),
        (["gan", "method=contragan", *SMALL], "looks at the classes of generated images: conditional=true"),
        (["gan", "method=contrad", "augment=none", *SMALL], "which need an augmentation: augment=affine"),
        (["gan", "resume=nowhere"], "resume must be a run folder"),
        (["sample"], "checkpoint must be given: checkpoint=RUN_FOLDER"),
        (["sample", "checkpoint=nowhere"], "must be a run of `contraux gan`"),
    ]:
        done = contraux.run(*words, cwd=tmp_path)
        assert done.returncode == 2, (words, done.stderr)
        assert sentence in done.stderr, (sentence, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_method_that_compares_views_is_given_an_augmentation(tmp_path, contraux):
    done = contraux.run("gan", "method=contrad", "steps=1", *SMALL, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "AffineContrast" in (tmp_path / "run/config.yaml").read_text()


def test_help_names_the_groups_as_the_line_does(tmp_path, contraux):
    done = contraux.run("gan", "--help", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert "backbone: dcgan, resnet, sndcgan" in lines
    assert any(line.startswith("method: class_supcon, contrad") for line in lines)
    groups = {line.partition(":")[0] for line in lines if line.partition(":")[0].isidentifier() and ": " in line}
    assert groups == {"method", "backbone", "adversarial", "augment", "data"}


@pytest.mark.parametrize(("line", "choices"), [
    ("contraux gan backb", ["backbone.", "backbone="]),
    ("contraux gan backbone=", ["backbone=dcgan", "backbone=resnet", "backbone=sndcgan"]),
    ("contraux gan method=none backbone=resnet backbone.w", ["backbone.width="]),
    ("contraux gan method=none augment=di", ["augment=diffaug"]),
])  # fmt: skip
def test_completion(tmp_path, contraux, line, choices):
    done = contraux.run("-sc", "query=bash", cwd=tmp_path, COMP_LINE=line)
    assert done.stdout.split() == choices, done.stderr


def test_metrics_at_a_runs_end(tmp_path, contraux):
    network = "{_target_: contraux.clgen.metrics.random_cnn, _partial_: true, width: 8}"
    line = ["gan", "steps=2", *SMALL[:-1], f"evaluation.extractors=[{network}]", "evaluation.samples=40"]
    done = contraux.run(*line, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["metrics"]["frechet/random_cnn"] > 0 and 0 <= result["metrics"]["recall/random_cnn"] <= 1
    assert "frechet/random_cnn" in done.stdout
    counts = json.loads((tmp_path / "run/quality.json").read_text())["counts"]
    assert (counts["real"], counts["fake"], counts["held_out"]) == (1258, 40, 539)
