"""`contraux evaluate` on real checkpoints: what it writes, whom it pairs, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import contraux
from contraux.core.encoders import PretrainedEncoder, SmallCNN
from contraux.core.evaluation import Found
from contraux.core.evaluation.checkpoints import load, untrained
from contraux.core.evaluation.job import RANDOM, RAW, folder_for, main, seeds_of

CONFIGS = Path(contraux.__file__).parent / "configs"
PROGRAM = Path(sys.executable).with_name("contraux")
DIGITS = {"_target_": "contraux.core.data.digits", "_partial_": True}
QUICK = ["measures.linear=null", "measures.episodes=null", "measures.fine_tune=null", "measures.geometry=null"]
QUICK += ["measures.few_labels.shots=[1]", "measures.few_labels.draws=2", "picture=null"]


def run_folder(folder, seed=0, shape=(1, 8, 8), **config):
    """Write what `contraux pretrain` leaves behind, of an encoder that was not trained."""
    torch.manual_seed(seed)
    description = {"_target_": "contraux.core.encoders.SmallCNN", "width": 8}
    encoder = PretrainedEncoder(SmallCNN(shape, width=8), shape, [0.3] * shape[0], [0.4] * shape[0], description)
    folder.mkdir(parents=True)
    encoder.save_pretrained(folder / "encoder")
    OmegaConf.save({"seed": seed, "data": DIGITS, "views": None, **config}, folder / "config.yaml")
    return folder


def evaluate(*words):
    with initialize_config_module("contraux.configs", version_base="1.3"):
        main(compose("evaluate", list(words)))


def read(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_one_checkpoint_leaves_everything_behind(tmp_path, capsys):
    run = run_folder(tmp_path / "run", views=yaml.safe_load((CONFIGS / "views" / "digits.yaml").read_text()))
    evaluate(f"checkpoint={run}", "seeds=3", "measures.episodes.episodes=20", "measures.fine_tune.epochs=2")
    found = read(run / "evaluation")
    assert found["checkpoints"] == [str(run)] and found["seeds"] == [0, 1, 2]
    arms = found["arms"]
    assert list(arms) == ["checkpoint", RANDOM, RAW]
    names = ["linear", "linear_1_shot", "linear_5_shot", "linear_10_shot", "knn", "prototypes_5_way_1_shot"]
    names += ["logistic_5_way_1_shot", "prototypes_5_way_5_shot", "logistic_5_way_5_shot", "fine_tune_5_shot"]
    names += ["alignment_of_views", "alignment_of_classes", "uniformity", "effective_rank", "rankme"]
    assert list(arms["checkpoint"]) == list(arms[RANDOM]) == names
    assert list(arms[RAW]) == [name for name in names if name != "fine_tune_5_shot"]
    assert arms["checkpoint"]["linear"]["n"] == 1 and arms["checkpoint"]["linear"]["sd"] is None
    assert list(arms["checkpoint"]["linear_1_shot"]["by_seed"]) == ["0", "1", "2"]
    assert arms[RANDOM]["linear"]["n"] == 3 and arms[RANDOM]["linear"]["sd"] > 0
    assert set(arms["checkpoint"]["logistic_5_way_1_shot"]["half_width_95_by_seed"]) == {"0", "1", "2"}
    assert arms["checkpoint"]["alignment_of_views"]["mean"] > 0
    difference = found["differences"][f"checkpoint - {RANDOM}"]["linear_1_shot"]
    one, other = (arms[arm]["linear_1_shot"]["by_seed"] for arm in ("checkpoint", RANDOM))
    assert difference["mean"] == pytest.approx(sum(one[seed] - other[seed] for seed in one) / 3)
    assert difference["finding"] == "too few seeds to tell" and difference["pairs"] == 3
    assert found["data"]["train"] == 1258 and found["data"]["shape"] == [1, 8, 8]
    assert found["settings"]["measures"]["knn"]["k"] == 200 and "torch" in found["versions"]["libraries"]
    assert "not of pretraining" in found["notes"][0]
    assert (run / "evaluation" / "embedding.png").read_bytes()[:4] == b"\x89PNG"
    table = (run / "evaluation" / "table.md").read_text()
    printed = capsys.readouterr().out
    for name in names:
        assert f"| {name.replace('_', ' ')} |" in table and name.replace("_", " ") in printed
    assert f"checkpoint − {RANDOM} [95 %]" in printed and "evaluation.json" in printed


def test_several_checkpoints_are_paired_with_random_encoders_of_their_own_seeds(tmp_path):
    runs = [run_folder(tmp_path / name, seed) for name, seed in (("a", 4), ("b", 2))]
    evaluate(f"checkpoint=[{runs[0]},{runs[1]}]", *QUICK, "folder=both")
    both = read(Path("both"))
    assert both["seeds"] == [4, 2] and not any("not of pretraining" in note for note in both["notes"])
    evaluate(f"checkpoint={runs[1]}", *QUICK, "seeds=1", "first_seed=2")
    single = read(runs[1] / "evaluation")
    for arm in ("checkpoint", RANDOM):
        assert list(both["arms"][arm]["knn"]["by_seed"]) == ["4", "2"]
        for name in ("knn", "linear_1_shot"):
            assert both["arms"][arm][name]["by_seed"]["2"] == single["arms"][arm][name]["by_seed"]["2"]
    assert both["arms"]["checkpoint"]["knn"]["by_seed"]["4"] != both["arms"]["checkpoint"]["knn"]["by_seed"]["2"]
    assert both["arms"][RAW]["knn"]["n"] == 1


def test_a_random_encoder_has_the_architecture_but_not_the_weights(tmp_path):
    checkpoint = load(run_folder(tmp_path / "run"))
    before = torch.get_rng_state()
    one, same, other = (untrained(checkpoint)(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [encoder.encoder.state_dict() for encoder in (one, same, other, checkpoint.encoder)]
    first = next(name for name, value in weights[0].items() if value.ndim == 4)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0][first], weights[2][first])
    assert not torch.equal(weights[0][first], weights[3][first])
    assert one.mean.tolist() == checkpoint.encoder.mean.tolist() and not one.training


class Mine:
    """A measure of somebody's own, by `_target_`."""

    seeded, labels = True, "none"

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, subject, seed):
        return Found({"mine": float(self.factor * seed)}, notes=["mine: by hand"])


def test_measures_can_be_left_out_and_added(tmp_path, monkeypatch):
    module = type(sys)("measure_of_mine")
    module.Mine = Mine
    monkeypatch.setitem(sys.modules, "measure_of_mine", module)
    run = run_folder(tmp_path / "run")
    words = [*QUICK, "measures.few_labels=null", "measures.knn=null", "random=false", "raw=false", "seeds=2"]
    evaluate(f"checkpoint={run}", *words, "+measures.mine={_target_: measure_of_mine.Mine, factor: 3}")
    found = read(run / "evaluation")
    assert found["arms"] == {"checkpoint": {"mine": {"mean": 1.5, "sd": pytest.approx(4.5**0.5), "n": 2,
                                                     "by_seed": {"0": 0.0, "1": 3.0}}}}  # fmt: skip
    assert found["differences"] == {} and "mine: by hand" in found["notes"]


def test_an_encoders_folder_needs_data_by_name(tmp_path):
    run = run_folder(tmp_path / "run")
    with pytest.raises(ValueError, match=r"does not say which data it was trained on.*give data=NAME"):
        evaluate(f"checkpoint={run / 'encoder'}", *QUICK)
    evaluate(f"checkpoint={run / 'encoder'}", *QUICK, "data=digits", "seeds=1", "folder=elsewhere")
    assert list(read(Path("elsewhere"))["arms"]) == ["checkpoint", RANDOM, RAW]


def test_data_of_the_command_line_come_before_the_runs_own(tmp_path):
    run = run_folder(tmp_path / "run")
    evaluate(f"checkpoint={run}", *QUICK, "data=digits", "data.test_share=0.5", "seeds=1")
    assert read(run / "evaluation")["data"]["test"] > 890


def test_what_is_refused_and_how(tmp_path):
    run = run_folder(tmp_path / "run")
    large = run_folder(tmp_path / "large", shape=(3, 16, 16))
    other = run_folder(tmp_path / "other", 1, data={**DIGITS, "test_share": 0.5})
    running = tmp_path / "running"
    running.mkdir()
    OmegaConf.save({"data": DIGITS}, running / "config.yaml")
    for words, sentence in {
        ("data=digits",): "checkpoint must be given",
        ("checkpoint=no/such/run",): "there is no folder 'no/such/run'",
        (f"checkpoint={running}",): "is a run without an encoder: it has not ended, resume=",
        (f"checkpoint={large}",): r"reads inputs of shape \(3, 16, 16\), but the data have \(1, 8, 8\)",
        (f"checkpoint=[{run},{run}]",): "checkpoints must differ, got .*run twice",
        (f"checkpoint=[{run},{other}]",): "must have the same data",
        (f"checkpoint={run}", "seeds=0"): "seeds must be a whole number >= 1, got 0",
        (f"checkpoint={run}", "random=no"): "random must be true or false, got 'no'",
        (f"checkpoint={run}", "device=abacus"): "device must be auto, cpu or another that torch finds here",
        (f"checkpoint={run}", "picture=umap"): "unknown picture 'umap'",
        (f"checkpoint={run}", "measures.episodes.queries=60"): "need 61 test examples of each class, and class '0' has",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            evaluate(*words)


def test_a_runs_config_runs_no_code_of_others(tmp_path):
    for key in ("data", "views"):
        node = {"_target_": "os.system", "command": f"touch {tmp_path / key}"}
        run = run_folder(tmp_path / f"run_{key}", **{key: node})
        with pytest.raises(ValueError, match=r"a config is code, and this one would run 'os\.system'"):
            evaluate(f"checkpoint={run}", *QUICK)
        assert not (tmp_path / key).exists()


def test_without_a_description_there_is_no_random_encoder(tmp_path):
    loaded = load(run_folder(tmp_path / "run"))
    loaded.encoder.description = None
    with pytest.raises(ValueError, match="does not say which class the encoder is"):
        untrained(loaded)(0)


def test_seeds_and_folders(tmp_path):
    runs = [load(run_folder(tmp_path / str(seed), seed)) for seed in (7, 3)]
    assert seeds_of(runs[:1], 3, 5) == [5, 6, 7]
    assert seeds_of(runs, 5, 0) == [7, 3]
    assert seeds_of([runs[0], runs[1]._replace(config={})], 5, 0) == [0, 1]  # one does not say its seed
    assert folder_for([runs[0].where], None) == tmp_path / "7" / "evaluation"
    assert folder_for(["some/model-of-the-hub"], None).parent == Path("runs/evaluate")
    assert folder_for([run.where for run in runs], None).parent == Path("runs/evaluate")
    assert folder_for([runs[0].where], "here") == Path("here")


def test_help_names_every_data_set():
    config = yaml.safe_load((CONFIGS / "evaluate.yaml").read_text())
    text = config["hydra"]["help"]["template"]
    for path in (CONFIGS / "data").glob("*.yaml"):
        assert path.stem in text, path.stem
    for name in config["measures"]:
        assert name in text


def test_the_command_line(tmp_path):
    run = run_folder(tmp_path / "run")
    words = [PROGRAM, "evaluate", f"checkpoint={run}", *QUICK, "seeds=1", "threads=1", "picture=pca"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "linear 1 shot" in done.stdout and (run / "evaluation" / "embedding.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]  # nothing is left elsewhere
