"""`contraux compare-gan` and `compare-diffusion` for real: tiny runs, one that fails, what is kept and refused."""

import json

import pytest

RANDOM = "{_target_: contraux.clgen.metrics.random_cnn, _partial_: true}"
GAN = [
    "compare-gan", "experiment=digits_gan", "steps=3", "batch_size=8", "images=64", "backbone.width=4",
    "backbone.latent=8", "evaluation.samples=48", f"evaluation.extractors=[{RANDOM}]",
    *(f"~compare.arms.{arm}" for arm in ("insgen", "infomax", "real_fake_supcon", "infomax_alone",
                                         "real_fake_supcon_alone", "affine", "contrad_affine")),
    "compare.arms.equal_time=['steps=4']",
]  # fmt: skip
DIFFUSION = [
    "compare-diffusion", "experiment=digits_diffusion", "steps=2", "batch_size=8", "model.channels=[16,16]",
    "samples.count=4", "samples.sampling_steps=1", "compare.arms.equal_time=['steps=3']",
    *(f"~compare.arms.{arm}" for arm in ("repa", "dispersive")), "hydra/launcher=basic",
    "evaluation={samples: 32, sampling_steps: [1], images: 60, levels: [0.3, 0.6], bins: 4, shifts: [50]}",
    "evaluation.extractors.classifier=null",
]  # fmt: skip


def test_gans_in_parallel_with_a_failing_arm_then_kept_and_extended(tmp_path, contraux):
    line = [
        *GAN,
        "+compare.arms.wrong=['method=contragan']",
        "hydra.launcher.n_jobs=2",
    ]  # which needs a number of classes
    done = contraux.run(*line, "compare.seeds=1", cwd=tmp_path)
    assert done.returncode == 1, done.stderr  # some runs failed, and the exit code says so
    assert "wrong seed 0: failed, " in done.stdout and "classes" in done.stdout
    folder = tmp_path / "runs/compare/digits_gan"
    completed = {path: path.stat().st_mtime_ns for path in folder.glob("[!w]*/seed_0/result.json")}
    assert {path.parts[-3] for path in completed} == {"base", "equal_time", "diffaug", "contrad"}
    settings = (folder / "contrad/seed_0/config.yaml").read_text()
    assert "ContraD" in settings and "DiffAug" in settings  # the arm's words named groups as a line does

    done = contraux.run(*GAN, "compare.seeds=2", "hydra/launcher=basic", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "4 of 8 runs are done already" in done.stdout
    assert all(path.stat().st_mtime_ns == written for path, written in completed.items())
    found = json.loads((folder / "results.json").read_text())
    assert found["better"]["frechet/random_cnn"] == "lower" and found["arms"]["contrad"]["control"] == "diffaug"
    frechet = found["arms"]["contrad"]["frechet/random_cnn"]
    mine = {
        arm: [json.loads((folder / arm / f"seed_{seed}/result.json").read_text())["metrics"]["frechet/random_cnn"]
              for seed in (0, 1)]
        for arm in ("base", "diffaug", "contrad")
    }  # fmt: skip
    assert frechet["mean"] == pytest.approx(sum(mine["contrad"]) / 2)
    for control, name in (("base", "difference_to_base"), ("diffaug", "difference_to_control")):
        differences = [own - other for own, other in zip(mine["contrad"], mine[control], strict=True)]
        assert frechet[name]["mean"] == pytest.approx(sum(differences) / 2) and frechet[name]["pairs"] == 2
    page = (folder / "table.md").read_text()
    assert "difference to control" in page and "Fewer than 5 seeds, 2 in" in page and " x |" in page
    assert (folder / "differences.png").read_bytes().startswith(b"\x89PNG")

    other = contraux.run(*GAN, "compare.seeds=2", "trainer.ema=0.9", cwd=tmp_path)
    assert other.returncode == 2 and "was made with trainer.ema=0.995, now 0.9" in other.stderr


def test_diffusion_with_curves_over_the_noise_level(tmp_path, contraux):
    done = contraux.run(*DIFFUSION, "compare.seeds=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    folder = tmp_path / "runs/compare/digits_diffusion"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    arms = json.loads((folder / "results.json").read_text())["arms"]
    assert set(arms) == {"base", "equal_time", "pair", "time_infonce", "ordinal_snr"}
    measured = {
        "steps_1_frechet/random_cnn",
        "denoising_error",
        "shifted_error_50",
        "probe_0.3",
        "probe_0.6",
        "seconds",
    }
    assert measured <= arms["time_infonce"].keys() and not any("effective_rank" in name for name in arms["base"])
    assert arms["equal_time"]["steps"]["mean"] == 3 and arms["time_infonce"]["control"] == "pair"
    again = contraux.run(*DIFFUSION, "compare.seeds=1", "compare.metrics=[denoising_error]", cwd=tmp_path)
    assert again.returncode == 0 and "5 of 5 runs are done already" in again.stdout
    assert "probe" not in (folder / "table.md").read_text()


def test_mistakes_are_said_before_any_run(tmp_path, contraux):
    for words, sentence in [
        (["compare-gan"], "compare needs experiment=NAME"),
        ([*GAN, "+compare.arms.x=['method=contrd']"], "did you mean contrad"),
        ([*GAN, "compare.metrics=frechet"], "compare.metrics must be a list of names or patterns"),
        ([*GAN, "compare.controls=diffaug"], "compare.controls"),
        ([*DIFFUSION, "+compare.arms.x='weight=1'"], "compare.arms.x must be a list of overrides"),
    ]:
        done = contraux.run(*words, cwd=tmp_path)
        assert done.returncode == 2 and sentence in done.stderr, done.stderr
    assert not list(tmp_path.glob("runs/**/result.json"))
