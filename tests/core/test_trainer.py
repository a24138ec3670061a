"""The trainer: what it computes does not depend on chunks, workers, interruptions or precision."""

import csv
import dataclasses
import shutil
import warnings
from functools import partial

import pytest
import torch
from pretraining import make_method, make_trainer

from contraux.core.files import existing
from contraux.core.pretraining import SimCLR
from contraux.core.training.record import NotFinite
from contraux.core.training.start import started


def rows(folder):
    with (folder / "progress.csv").open() as file:
        return list(csv.DictReader(file))


def losses(folder):
    return [float(row["loss"]) for row in rows(folder)]


def test_trains_and_leaves_every_step_on_record(tmp_path):
    trainer = make_trainer(tmp_path, epochs=3)
    before = [parameter.clone() for parameter in trainer.method.encoder.parameters()]
    trained = trainer.fit()
    assert trained.status == "completed"
    assert trained.step == trained.steps == 27  # 1258 // 128 batches an epoch
    assert [int(row["step"]) for row in rows(tmp_path)] == list(range(1, 28))
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]
    assert trained.last["loss"] == losses(tmp_path)[-1]
    after = list(trainer.method.encoder.parameters())
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    rates = [float(row["learning_rate"]) for row in rows(tmp_path)]
    assert rates[0] == pytest.approx(1e-3 * 128 / 256 / 7)  # first of 7 steps of warm-up
    assert max(rates) == pytest.approx(1e-3 * 128 / 256)


def test_the_same_seed_gives_the_same_run_and_another_one_another(tmp_path):
    runs = [make_trainer(tmp_path / str(i), epochs=1, seed=seed) for i, seed in enumerate((3, 3, 4))]
    for run in runs:
        run.fit()
    one, same, other = (losses(run.folder) for run in runs)
    assert one == same
    assert one != other


def test_worker_processes_change_nothing(tmp_path):
    for workers in (0, 2):
        make_trainer(tmp_path / str(workers), epochs=1, workers=workers).fit()
    assert losses(tmp_path / "0") == losses(tmp_path / "2")


@pytest.mark.parametrize("name", ["simclr", "moco", "vicreg"])
def test_gradient_caching_gives_the_curve_of_the_whole_batch(tmp_path, name):
    for chunk in (None, 48):
        method = make_method(name, **({"shuffle_groups": 1} if name == "moco" else {}))
        sgd = partial(torch.optim.SGD, lr=0.1)  # Adam divides by what is near 0, and so enlarges rounding
        make_trainer(tmp_path / str(chunk), method, epochs=1, chunk_size=chunk, optimizer=sgd).fit()
    assert losses(tmp_path / "48") == pytest.approx(losses(tmp_path / "None"), rel=2e-5, abs=2e-5)


def test_accumulation_averages_gradients_and_warns_that_batches_stay_apart(tmp_path):
    with pytest.warns(UserWarning, match="compared within each batch alone"):
        trainer = make_trainer(tmp_path / "two", epochs=1, batch_size=64, accumulate=2)
    assert trainer.steps == 1258 // 128
    accelerator = started(trainer, trainer.settings, resume=False)
    engine, by_hand = (one._engine(accelerator) for one in (trainer, make_trainer(tmp_path / "hand")))
    loader = trainer._loader(accelerator, 0)
    batches = [trainer._views(engine.accelerator, loader, batch) for batch in range(2)]
    loader.close()
    engine.update(batches, factor=0.5)
    torch.stack([by_hand.method(*batch).loss for batch in batches]).mean().backward()
    for group in by_hand.optimizer.param_groups:
        group["lr"] = 1e-3 * 128 / 256 / 2
    by_hand.optimizer.step()
    for one, other in zip(engine.method.parameters(), by_hand.method.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_half_precision_trains_and_keeps_the_loss_in_float32(tmp_path):
    """One after the other in this process, which Accelerate alone refuses."""
    trained = make_trainer(tmp_path / "bf16", epochs=1, precision="bf16").fit()
    make_trainer(tmp_path / "no", epochs=1).fit()
    assert trained.status == "completed"
    assert losses(tmp_path / "bf16") != losses(tmp_path / "no")
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "no"), rel=0.05)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, epochs=2, checkpoint_every=4, log_every=1)
    forward, calls = SimCLR.compare, []

    def compare(method, *embeddings, labels=None):
        calls.append(0)
        outcome = forward(method, *embeddings, labels=labels)
        return outcome._replace(loss=outcome.loss * float("nan")) if len(calls) == 7 else outcome

    monkeypatch.setattr(SimCLR, "compare", compare)
    with pytest.raises(ValueError, match=r"got nan at step 7; the checkpoint of step 4 is kept") as caught:
        trainer.fit()
    assert isinstance(caught.value.__cause__, NotFinite)
    monkeypatch.undo()
    resumed = make_trainer(tmp_path, epochs=2, checkpoint_every=4)
    assert resumed.fit(resume=True).status == "completed"
    whole = make_trainer(tmp_path / "whole", epochs=2)
    whole.fit()
    assert (tmp_path / "progress.csv").read_bytes() == (tmp_path / "whole" / "progress.csv").read_bytes()


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, monkeypatch, name):
    """Queue, momentum copy, shuffling (which draws from the global generator), batch norm and dropout go on."""

    def method():
        made = make_method(name, norm="batch")
        made.online.add_module("dropout", torch.nn.Dropout(0.2))
        return made

    make_trainer(tmp_path / "whole", method(), epochs=2).fit()
    part = make_trainer(tmp_path / "part", method(), epochs=2, checkpoint_every=5)
    update, steps = type(part.method).update, []

    def dies(method, progress):
        steps.append(progress)
        if len(steps) == 7:
            raise KeyboardInterrupt
        update(method, progress)

    monkeypatch.setattr(type(part.method), "update", dies)
    with pytest.raises(KeyboardInterrupt):
        part.fit()
    monkeypatch.undo()
    torch.manual_seed(99)
    torch.rand(7)
    resumed = make_trainer(tmp_path / "part", method(), epochs=2)
    resumed.fit(resume=True)
    assert losses(tmp_path / "part") == losses(tmp_path / "whole")


def interrupted(folder):
    """Leave a run of 18 steps, of which 9 are done and saved."""
    trainer, done = make_trainer(folder, checkpoint_every=9), []

    def stop(*_):
        done.append(0)
        if len(done) > 9:
            raise KeyboardInterrupt

    trainer.method.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": 3}, "epochs was 2, got 3"),
        ({"batch_size": 64}, "batch_size was 128, got 64"),
        ({"batch_size": 64, "accumulate": 2}, "batch_size was 128, got 64"),
        ({"seed": 1}, "seed was 0, got 1"),
        ({"chunk_size": 32}, "chunk_size was None, got 32"),
        ({"warmup": 0.5}, "warmup was 0.25, got 0.5"),
        ({"method": "vicreg"}, "method was 'SimCLR', got 'VICReg'"),
        (
            {"method": "simclr", "norm": "batch"},
            r"method.online.encoder.layers.1 was 'GroupNorm\(8, 32, .*'BatchNorm2d",
        ),
        ({"optimizer": partial(torch.optim.AdamW, lr=2e-3)}, "optimizer.lr was 0.001, got 0.002"),
        ({"optimizer": partial(torch.optim.SGD, lr=1e-3)}, "optimizer was 'AdamW', got 'SGD'"),
        ({"temperature": 0.3}, r"method.objective.temperature was 0.\d+, got 0.3"),
        ({"rows": 1257}, r"len\(data\) was 1258, got 1257"),
    ],
)
@pytest.mark.filterwarnings("ignore:accumulate")
def test_a_run_goes_on_with_its_own_settings(begun, tmp_path, settings, sentence):
    shutil.copytree(begun, tmp_path / "run")
    name, norm, temperature, rows = (settings.pop(key, None) for key in ("method", "norm", "temperature", "rows"))
    method = make_method(name or "simclr", norm or "group")
    if temperature is not None:
        method.objective.temperature = temperature
    trainer = make_trainer(tmp_path / "run", method, **settings)
    if rows is not None:
        trainer.data.inputs, trainer.data.labels = trainer.data.inputs[:rows], trainer.data.labels[:rows]
    with pytest.raises(ValueError, match=f"a run goes on with the settings it had, and {sentence}"):
        trainer.fit(resume=True)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    interrupted(folder)
    return folder


def test_what_may_change_may_change(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "run")
    trained = make_trainer(tmp_path / "run", workers=1, log_every=3, checkpoint_every=None).fit(resume=True)
    assert trained.status == "completed" and trained.step == 18


def test_no_run_is_overwritten_and_no_trainer_fits_twice(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "run")
    before = (tmp_path / "run" / "progress.csv").read_bytes()
    with pytest.raises(
        ValueError, match=r"folder must be one without a checkpoint, got .*run' with one of step 9: fit\(res"
    ):
        make_trainer(tmp_path / "run").fit()
    assert (tmp_path / "run" / "progress.csv").read_bytes() == before
    trainer = make_trainer(tmp_path / "new", epochs=1)
    trainer.fit()
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"a trainer fits once, got another fit\(\): make a new one"):
            trainer.fit(resume=resume)


def test_random_states_that_cannot_be_restored_are_refused(begun, tmp_path):
    """Accelerate alone only logs that it could not, and goes on with other random numbers."""
    path = tmp_path / "run" / "checkpoint" / "random_states_0.pkl"
    for break_it in (path.unlink, lambda: path.write_bytes(b"?"), lambda: torch.save({"random_state": 0}, path)):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(begun, tmp_path / "run")
        break_it()
        with pytest.raises(ValueError, match="the random states of a checkpoint must be readable"):
            make_trainer(tmp_path / "run").fit(resume=True)
    with torch.serialization.safe_globals(accelerate_globals()):
        saved = torch.load(begun / "checkpoint" / path.name, weights_only=True)
    torch.save({**saved, "numpy_random_seed": ("MT19937", [0], 0, 0, 0.0)}, path)  # NumPy refuses it
    with pytest.raises(ValueError, match="random states"):
        make_trainer(tmp_path / "run").fit(resume=True)


def test_supcon_without_classes_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, epochs=1)
    trainer.data.classes = ()
    with pytest.raises(
        ValueError, match="SupCon needs data with one class for each example, and these name no classes"
    ):
        dataclasses.replace(trainer, method=make_method("supcon"))


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_a_rate_that_overflows_is_one_sentence(tmp_path, optimizer):
    trainer = make_trainer(tmp_path, epochs=1, optimizer=partial(optimizer, lr=1e39))
    with pytest.raises(ValueError, match=r"the learning rate must be small enough for steps .*, got \d"):
        trainer.fit()


def test_checkpoints_hold_no_code(tmp_path):
    make_trainer(tmp_path, epochs=1).fit()
    folder = existing(tmp_path / "checkpoint")
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.safetensors", "optimizer.bin", "random_states_0.pkl", "position.json"}
    for name in ("optimizer.bin", "random_states_0.pkl"):  # what torch can load without running anything
        with torch.serialization.safe_globals(accelerate_globals()):
            torch.load(folder / name, weights_only=True)


def accelerate_globals():
    from accelerate.utils.other import TORCH_SAFE_GLOBALS

    return TORCH_SAFE_GLOBALS


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"batch_size": 1}, "batch_size must be a whole number >= 2, got 1"),
        ({"batch_size": 2000}, "batch_size x accumulate must be at most the 1258 examples of the data, got 2000 x 1"),
        ({"warmup": 1}, r"warmup must be a number in \[0, 1\), got 1"),
        ({"precision": "bf61"}, "unknown precision 'bf61': did you mean bf16"),
        ({"chunk_size": 0}, "chunk_size must be a whole number >= 1, got 0"),
        ({"max_grad_norm": 0}, "max_grad_norm must be a number > 0, got 0"),
    ],
)
def test_sentences(tmp_path, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_trainer(tmp_path, **settings)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ValueError, match="has none: start the run anew"):
        make_trainer(tmp_path).fit(resume=True)


def test_no_warning_without_cause(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_trainer(tmp_path, epochs=1).fit()
