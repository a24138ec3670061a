"""What every method of configs/method/ keeps: gradients, copies, state, chunks, precision, exchangeable parts."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from small_methods import COPIED, NAMES, NEGATIVE_FREE, Encoder, config, gradients, labels, small, trainable, views
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import contraux
from contraux.core.distributed import cached_backward, split_rows
from contraux.core.encoders import MomentumEncoder
from contraux.core.preset import exchanged
from contraux.core.pretraining import SimCLR, SupCon
from contraux.core.pretraining.shuffled import Shuffled

CONFIGS = Path(contraux.__file__).parent / "configs"
CONTRASTIVE = [name for name in NAMES if name not in NEGATIVE_FREE]
PARTS = sorted(
    f"{group}={path.stem}" for group in ("loss", "sampler", "similarity") for path in (CONFIGS / group).glob("*.yaml")
)
PAIRED = {"negative_cosine", "vicreg", "barlow_twins", "alignment_uniformity"}


def step(method, optimizer, seed, progress=0.3):
    outcome = method(*views(seed=seed, dtype=torch.float32), labels())
    optimizer.zero_grad()
    outcome.loss.backward()
    optimizer.step()
    method.update(progress)
    return outcome.loss.item()


def sgd(method, rate=0.05):
    return torch.optim.SGD(trainable(method).values(), lr=rate, momentum=0.9)


def test_every_method_of_the_issue_is_there():
    assert NAMES == ["barlow", "byol", "moco", "moco_v1", "mocov3", "simclr", "simsiam", "supcon", "vicreg"]


# ---- the YAML as it is


class Digits(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.Flatten()
        )
        self.out_features = 128


def digits(rows=96):
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images[:rows], dtype=torch.float32)[:, None] / 16
    return (images - 0.3) / 0.376, torch.tensor(data.target[:rows])


@pytest.mark.parametrize("name", NAMES)
def test_a_yaml_trains_on_digits(name):
    method = instantiate(config(name), _convert_="all")(Digits()).train()
    optimizer = torch.optim.AdamW(trainable(method).values(), lr=1e-3)
    (x, classes), losses = digits(), []
    for number in range(12):
        a, b = (x + 0.3 * torch.randn_like(x) for _ in range(2))
        outcome = method(a, b, classes)
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
        method.update((number + 1) / 12)
        losses.append(outcome.loss.item())
    if name.startswith("moco") and name != "mocov3":  # ever more negatives; it beats guessing among them all the same
        assert losses[-1] < torch.tensor(96.0 * 12).log() and outcome.metrics["mutual_information"] > 0.5
    else:
        assert losses[-1] < 0.9 * losses[0] if losses[0] > 0 else losses[-1] < losses[0] - 0.1
    if name in NEGATIVE_FREE:
        assert outcome.metrics["spread"] > 0.3
    for value in outcome.metrics.values():
        assert value.ndim == 0 and not value.requires_grad and value.isfinite()
    assert method.encoder(x).shape == (96, 128)
    assert isinstance(method.encoder, Digits)


# ---- gradients


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_encoder_and_heads_but_no_copy(name, batch_norm):
    method = small(name, batch_norm).double()
    method(*views(), labels()).loss.backward()
    for weight, gradient in gradients(method).items():  # batch norm takes out a bias before it
        unseen = batch_norm and weight.startswith("online.encoder") and weight.endswith(("0.bias", "3.bias"))
        assert gradient is not None and (unseen or gradient.abs().max() > 1e-8), weight
    names = {weight.split(".")[0] for weight in trainable(method)}
    assert names == {"online"} | ({"prediction"} if "prediction" in config(name) else set())
    copied = [part for part in method.modules() if isinstance(part, MomentumEncoder)]
    assert len(copied) == (name in COPIED)
    for weight in (weight for part in copied for weight in part.parameters()):
        assert weight.grad is None and not weight.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_no_weight_is_twice_in_the_state(name):
    state = small(name, True).state_dict()
    places = [one.data_ptr() for one in state.values() if isinstance(one, torch.Tensor) and one.numel()]
    assert len(places) == len(set(places))


# ---- state


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_state_continues_to_the_bit(name, batch_norm):
    method = small(name, batch_norm)
    optimizer = sgd(method)
    for seed in range(4):
        step(method, optimizer, seed)
    state = copy.deepcopy((method.state_dict(), optimizer.state_dict(), torch.get_rng_state()))
    expected = [step(method, optimizer, seed) for seed in range(4, 8)]

    other = small(name, batch_norm, encoder=Encoder(batch_norm))
    resumed = sgd(other)
    other.load_state_dict(state[0])
    resumed.load_state_dict(state[1])
    torch.set_rng_state(state[2])
    assert [step(other, resumed, seed) for seed in range(4, 8)] == expected
    for (key, one), two in zip(method.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two), key


# ---- chunks


@pytest.mark.parametrize("rows", [3, 8, 16])
@pytest.mark.parametrize("name", NAMES)
def test_chunks_have_gradient_metrics_and_memory_of_the_whole_batch(name, rows):
    plain = small(name).double()
    cached = copy.deepcopy(plain)
    calls = {"copy": 0}
    for part in cached.modules():
        if isinstance(part, MomentumEncoder):
            part.register_forward_hook(lambda *_: calls.__setitem__("copy", calls["copy"] + 1))
    for seed in (1, 2, 3):
        a, b = views(seed=seed)
        outcome = plain(a, b, labels())
        outcome.loss.backward()
        modules, inputs = zip(*cached.branches(a, b), strict=True)
        chunks = [split_rows(one, rows) for one in inputs]
        found = cached_backward(modules, chunks, partial(cached.compare, labels=labels()))
        torch.testing.assert_close(found.loss, outcome.loss.detach())
        torch.testing.assert_close(found.metrics, outcome.metrics)
        for (key, one), two in zip(gradients(plain).items(), gradients(cached).values(), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-12, msg=key)
        for (key, one), two in zip(plain.state_dict().items(), cached.state_dict().values(), strict=True):
            torch.testing.assert_close(two, one, msg=key)  # the queue too
    views_of_copy = {"moco": 1, "moco_v1": 1, "mocov3": 2, "byol": 2}.get(name, 0)
    assert calls["copy"] == 3 * views_of_copy * -(-8 // rows)  # copies are asked once for each chunk, not again


@pytest.mark.parametrize("name", COPIED)
def test_running_statistics_of_a_copy_move_once_for_each_chunk(name):
    method = small(name, True, **({"shuffle_groups": 1} if name == "moco" else {}))
    modules, inputs = zip(*method.branches(*views(dtype=torch.float32)), strict=True)
    cached_backward(modules, [split_rows(one, 4) for one in inputs], method.compare)
    copied = next(part for part in method.modules() if isinstance(part, MomentumEncoder))
    seen = 2 if name in ("byol", "mocov3") else 1  # views
    groups = 2 if name == "moco_v1" else 1  # chunks of four rows are encoded in groups of two
    assert method.online.encoder[1].num_batches_tracked == 2 * seen
    assert copied.encoder.encoder[1].num_batches_tracked == 2 * seen * groups
    own = copied.encoder.encoder[1].running_mean.clone()
    with torch.no_grad():
        method.online.encoder[1].running_mean.add_(1.0)
    method.update(0.5)  # statistics are not those of the online network
    assert torch.equal(copied.encoder.encoder[1].running_mean, own)


# ---- precision


@pytest.mark.parametrize("name", NAMES)
def test_autocast_compares_in_float32(name):
    method = small(name)
    a, b = views(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        outcome = copy.deepcopy(method)(a, b, labels())
        embeddings = [embed(x) for embed, x in method.branches(a, b)]
    assert all(one.dtype == torch.bfloat16 for one in embeddings)
    assert outcome.loss.dtype == torch.float32
    torch.testing.assert_close(outcome.loss, copy.deepcopy(method)(a, b, labels()).loss, rtol=0.05, atol=0.02)

    if hasattr(method, "prediction"):
        method.prediction = nn.Identity()  # a network: it may be in half precision
    outside = copy.deepcopy(method).compare(*(one.float() for one in embeddings), labels=labels())
    with torch.autocast("cpu", torch.bfloat16):
        inside = copy.deepcopy(method).compare(*embeddings, labels=labels())
    torch.testing.assert_close(inside.loss, outside.loss, rtol=1e-5, atol=1e-6)
    inside.loss.backward()
    assert all(weight.grad.isfinite().all() for weight in method.online.parameters())


# ---- parts by name


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", NAMES)
def test_parts_are_exchanged_by_name(name, part):
    """As the command line does it: every part of an objective in every method that has a place for it."""
    group, option = part.split("=")
    node = yaml.safe_load((CONFIGS / group / f"{option}.yaml").read_text())
    whole = OmegaConf.create({"module": config(name)["objective"]})
    if name in NEGATIVE_FREE and group != "loss":
        with pytest.raises(ValueError, match=f"needs an objective that has a {group}, got contraux"):
            exchanged(whole, {group: node})
        return
    objective = OmegaConf.to_container(exchanged(whole, {group: node}).module)
    for place in ("sampler", "similarity"):
        if "dim" in objective.get(place, {}):
            objective[place]["dim"] = 4
    wrong = group == "loss" and (option in {"barlow_twins", *PAIRED}) != (name in NEGATIVE_FREE)
    if wrong:
        with pytest.raises(Exception, match="needs a loss of"):
            small(name, objective=objective)
        return
    method = small(name, objective=objective)
    if option == "cancel_by_guide":  # its features are the host's to give
        with pytest.raises(ValueError, match="CancelByGuide needs 'guide'"):
            step(method, sgd(method), 1)
        return
    if option in ("max_margin", "nt_xent") and name not in ("simclr", "supcon"):
        with pytest.raises(ValueError, match="queries must be the keys"):
            step(method, sgd(method), 1)
        return
    for seed in (1, 2):
        assert torch.tensor(step(method, sgd(method), seed)).isfinite()


def test_update_reaches_a_loss_that_anneals():
    node = config("simclr")["objective"]
    node["loss"] = yaml.safe_load((CONFIGS / "loss" / "hard_negative_annealed.yaml").read_text())
    method = small("simclr", objective=node)
    method.update(0.1)
    method.update(0.2)
    assert method.objective.loss.done == 2


def test_labels_reach_samplers_and_stay_out_of_the_loss():
    node = config("simclr")["objective"]
    node["sampler"] = yaml.safe_load((CONFIGS / "sampler" / "cancel_by_label.yaml").read_text())
    cancelling, plain, (a, b) = small("simclr", objective=node), small("simclr"), views(dtype=torch.float32)
    assert plain(a, b).loss == plain(a, b, labels()).loss == plain(a, b, torch.zeros(8, 3, dtype=torch.long)).loss
    assert cancelling(a, b, labels()).loss < plain(a, b, labels()).loss - 0.1
    torch.testing.assert_close(cancelling(a, b, torch.full((8,), -1)).loss, plain(a, b).loss)


# ---- shuffled batch norm


def test_keys_are_encoded_in_random_groups_and_come_back_in_order():
    encoder, x = nn.BatchNorm1d(1, affine=False, eps=1e-12), torch.arange(7.0)[:, None] ** 2
    shuffled = Shuffled(MomentumEncoder(encoder, 0.5), 3)
    torch.manual_seed(5)
    found = shuffled(x)
    torch.manual_seed(5)
    order = torch.randperm(7).tolist()
    for group in (order[:3], order[3:5], order[5:]):
        rows = x[group]
        expected = (rows - rows.mean()) / rows.std(correction=0)
        torch.testing.assert_close(found[group], expected)
    assert not torch.allclose(found, encoder(x))
    assert not torch.equal(found, shuffled(x))  # another order, other statistics


def test_the_order_is_drawn_where_the_rows_are():
    """A copy from the CPU's memory would wait for a GPU; here the rows are on torch's device without numbers."""

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            found = function(*arguments, **(keywords or {}))
            devices.update(x.device.type for x in tree_leaves((arguments, found)) if isinstance(x, torch.Tensor))
            return found

    with torch.device("meta"):
        shuffled, x, devices = Shuffled(MomentumEncoder(nn.BatchNorm1d(3), 0.5), 2), torch.empty(8, 3), set()
    with Copies():
        assert shuffled(x).shape == (8, 3)
    assert devices == {"meta"}


def test_nothing_is_shuffled_without_need():
    before = torch.get_rng_state()
    x, encoder = torch.randn(4, 5), nn.BatchNorm1d(5)
    torch.set_rng_state(before)
    for module, rows in (
        (Shuffled(MomentumEncoder(nn.Tanh(), 0.5), 3), x),
        (Shuffled(MomentumEncoder(encoder, 0.5), 1), x),
        (Shuffled(MomentumEncoder(encoder, 0.5), 3).eval(), x),
        (Shuffled(MomentumEncoder(encoder, 0.5), 3), x[:3]),  # no two groups of two
    ):
        torch.testing.assert_close(module(rows), copy.deepcopy(module.encoder)(rows))
    assert torch.equal(torch.get_rng_state(), before)


def test_queries_and_keys_of_moco_have_other_statistics():
    method = small("moco", True)  # the copy equals the network still
    x, _ = views(dtype=torch.float32)
    (query, _), (key, _) = method.branches(x, x)
    assert not torch.allclose(query(x), key(x), atol=0.05)
    method = small("moco", True, shuffle_groups=1)
    (query, _), (key, _) = method.branches(x, x)
    torch.testing.assert_close(query(x), key(x))


# ---- sentences


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: small("moco", momentum=1.0), r"momentum must be a number in \[0, 1\), got 1.0"),
        (lambda: small("moco", shuffle_groups=0), "shuffle_groups must be a whole number >= 1, got 0"),
        (lambda: small("simclr", encoder=nn.Tanh()), "encoder must have an integer `out_features`, got Tanh with None"),
        (
            lambda: SimCLR(Encoder(), projection=lambda _: nn.Tanh(), objective=None),
            "a projection must have an integer `out_features`, got Tanh with None",
        ),
        (
            lambda: small("byol", prediction={"_target_": "torch.nn.Linear", "_partial_": True, "out_features": 3}),
            "prediction must keep the dimension 4 of the projections, got 3",
        ),
        (lambda: small("supcon")(*views(dtype=torch.float32)), r"supcon needs one label for each .*\(8,\), got none"),
        (
            lambda: small("supcon")(*views(dtype=torch.float32), torch.zeros(8, 2, dtype=torch.long)),
            r"supcon needs one label for each example, \(8,\), got \(8, 2\)",
        ),
    ],
)  # fmt: skip
def test_wrong_arguments(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_unknown_labels_of_several_batches_are_no_positives_of_each_other():
    """A queue remembers labels: those made up for unknown examples must not come again."""
    node = config("supcon")["objective"]
    node["sampler"] = {"_target_": "contraux.core.samplers.Queue", "dim": 4, "size": 64}
    method = small("supcon", objective=node)
    assert isinstance(method, SupCon)
    for seed in (1, 2):
        method(*views(seed=seed, dtype=torch.float32), torch.full((8,), -1))
    remembered = method.objective.sampler.memory().context["key_label"]
    assert remembered.unique(return_counts=True)[1].tolist() == [2] * 16
