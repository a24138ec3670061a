"""The trainer: what it computes does not depend on chunks, workers, interruptions or precision."""

import csv
import warnings
from functools import partial

import pytest
import torch
from pretraining import make_method, make_trainer

from contraux.core.files import existing
from contraux.core.pretraining.record import NotFinite


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
    engine, by_hand = (one._engine(one._accelerator()) for one in (trainer, make_trainer(tmp_path / "hand")))
    loader = trainer._loader(trainer._accelerator(), 0)
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
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    try:
        trained = make_trainer(tmp_path / "bf16", epochs=1, precision="bf16").fit()
    finally:
        AcceleratorState._reset_state()
    make_trainer(tmp_path / "no", epochs=1).fit()
    assert trained.status == "completed"
    assert losses(tmp_path / "bf16") != losses(tmp_path / "no")
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "no"), rel=0.05)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, epochs=2, checkpoint_every=4, log_every=1)
    forward, calls = trainer.method.compare, []

    def compare(*embeddings, labels=None):
        calls.append(0)
        outcome = forward(*embeddings, labels=labels)
        return outcome._replace(loss=outcome.loss * float("nan")) if len(calls) == 7 else outcome

    trainer.method.compare = compare
    with pytest.raises(ValueError, match=r"got nan at step 7; the checkpoint of step 4 is kept") as caught:
        trainer.fit()
    assert isinstance(caught.value.__cause__, NotFinite)
    trainer.method.compare = forward
    resumed = make_trainer(tmp_path, epochs=2, checkpoint_every=4)
    assert resumed.fit(resume=True).status == "completed"
    whole = make_trainer(tmp_path / "whole", epochs=2)
    whole.fit()
    assert (tmp_path / "progress.csv").read_bytes() == (tmp_path / "whole" / "progress.csv").read_bytes()


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, name):
    """Queue, momentum copy, shuffling (which draws from the global generator), batch norm and dropout go on."""

    def method():
        made = make_method(name, norm="batch")
        made.online.add_module("dropout", torch.nn.Dropout(0.2))
        return made

    make_trainer(tmp_path / "whole", method(), epochs=2).fit()
    part = make_trainer(tmp_path / "part", method(), epochs=2, checkpoint_every=5)
    update, steps = part.method.update, []

    def dies(progress):
        steps.append(progress)
        if len(steps) == 7:
            raise KeyboardInterrupt
        update(progress)

    part.method.update = dies
    with pytest.raises(KeyboardInterrupt):
        part.fit()
    torch.manual_seed(99)
    torch.rand(7)
    resumed = make_trainer(tmp_path / "part", method(), epochs=2)
    resumed.fit(resume=True)
    assert losses(tmp_path / "part") == losses(tmp_path / "whole")


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
