"""The tap: what it records, what it refuses, and that the user's module stays what it was."""

import copy
import io
import pickle

import pytest
import torch
from tapped import Disc, Gap, Keyed, Stopped, images
from torch import nn

from contraux.clgen import GenerativeMethod, attach


@pytest.fixture
def disc():
    torch.manual_seed(0)
    return Disc()


def attached(disc, method=Gap, **kwargs):
    return attach(disc, at="body", objective=method, example=images(), **kwargs)


def test_two_calls_by_hand(disc):
    aux = attached(disc)
    with aux:
        disc(images(3, 1)), disc(images(3, 2))
    loss = aux.loss()
    real, fake = (disc.body(images(3, seed)).mean((2, 3)) for seed in (1, 2))
    expected = (real.mean(0) - fake.mean(0)).square().sum()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(aux.metrics["gap"], expected.sqrt().detach())
    loss.backward()
    assert disc.body[0].weight.grad.abs().sum() > 0 and aux.method.scale.grad is not None
    assert disc.head.weight.grad is None


def test_one_call_with_all_rows_is_split(disc):
    aux = attached(disc)
    with aux:
        disc(torch.cat((images(3, 1), images(3, 2))))
    one = aux.loss()
    with aux:
        disc(images(3, 1)), disc(images(3, 2))
    torch.testing.assert_close(one, aux.loss())
    with aux:
        disc(images(3))
    with pytest.raises(ValueError, match="equal parts, got 3 rows for 2"):
        aux.loss()


def test_calls_in_another_order(disc):
    aux = attached(disc)
    with aux.calls("fake", "real"):
        disc(images(3, 1)), disc(images(2, 2))
    aux.loss()
    assert len(aux.method.seen["fake"]["features"]) == 3 and len(aux.method.seen["real"]["features"]) == 2
    with pytest.raises(ValueError, match="calls must be real, fake in any order, got fake"), aux.calls("fake"):
        pass


def test_nothing_is_recorded_outside(disc):
    aux = attached(disc)
    disc(images())
    with aux:
        disc(images(3, 1))
        disc(images(3, 2))
    disc(images())
    aux.loss()
    with pytest.raises(ValueError, match="loss\\(\\) must follow a `with aux:`"):
        aux.loss()


def test_too_many_calls_are_refused(disc):
    aux = attached(disc)
    with aux:
        for seed in range(3):
            disc(images(3, seed))
    with pytest.raises(ValueError, match=r"one call of the model for each of real, fake.* got 3 calls"):
        aux.loss()


def test_a_tap_that_did_not_fire_says_so(disc):
    aux = attached(disc)
    with aux:
        disc.head(torch.zeros(1, 6))
    with pytest.raises(ValueError, match="the tap at body must fire inside `with aux:`"):
        aux.loss()


def test_a_wrong_name_lists_the_close_ones(disc):
    with pytest.raises(ValueError, match=r"Disc has no module 'bod': did you mean body or .*children are: body, head"):
        attach(disc, at="bod", objective=Gap, example=images())
    with pytest.raises(ValueError, match="Disc, which has no default for 'features'; its children are: body, head"):
        attach(disc, objective=Gap, example=images())


def test_class_names_and_state_stay(disc):
    before = {name: value.clone() for name, value in disc.state_dict().items()}
    kind = type(disc)
    aux = attached(disc)
    with aux:
        disc(images()), disc(images())
    aux.loss()
    assert type(disc) is kind and list(disc.state_dict()) == list(before) and disc.training
    assert all(torch.equal(disc.state_dict()[name], value) for name, value in before.items())
    assert [name for name, _ in aux.named_parameters()] == ["method.scale"]
    aux.detach()
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in disc.modules())


def test_a_copy_is_inert_even_while_a_graph_is_held(disc):
    aux = attached(disc)
    with aux:
        disc(images(3, 1))
        twin = copy.deepcopy(disc)
        twin(images(5, 9))
        disc(images(3, 2))
        twin(images(5, 9))
    aux.loss()
    assert len(aux.method.seen["fake"]["features"]) == 3
    again = pickle.loads(pickle.dumps(disc))
    torch.testing.assert_close(again(images()), disc(images()))
    buffer = io.BytesIO()
    torch.save(disc.state_dict(), buffer)


def test_the_stop_lies_behind_the_tap_and_only_inside(disc):
    aux = attached(disc, Stopped)
    with aux:
        scores = disc(images(3, 1)), disc(images(3, 2))
    sum(score.sum() for score in scores).backward()
    assert disc.body[0].weight.grad is None and disc.head.weight.grad is not None
    aux.loss().backward()
    assert disc.body[0].weight.grad.abs().sum() > 0
    disc.zero_grad()
    disc(images()).sum().backward()
    assert disc.body[0].weight.grad.abs().sum() > 0
    disc.zero_grad()
    with aux.for_generator():
        disc(images()).sum().backward()
    assert disc.body[0].weight.grad.abs().sum() > 0


def test_the_stop_can_lie_elsewhere(disc):
    aux = attach(disc, at="body.0", objective=Stopped, example=images(), stop_at="head")
    with aux:
        (disc(images(3, 1)).sum() + disc(images(3, 2)).sum()).backward()
    assert disc.body[0].weight.grad is None and disc.head.weight.grad is not None


def test_the_generators_term_leaves_the_heads_alone(disc):
    aux = attached(disc)
    x = images().requires_grad_()
    with aux.for_generator():
        disc(x)
    aux.loss().backward()
    assert x.grad.abs().sum() > 0 and aux.method.scale.grad is None and aux.method.scale.requires_grad


def test_momentum_follows_once_a_step(disc):
    aux = attached(disc, Keyed)
    start = disc.head.weight.detach().clone()
    for _ in range(2):
        with aux:
            disc(images(3, 1)), disc(images(3, 2))
        aux.loss(real_key=images(3, 3))
        assert set(aux.method.seen) == {"real", "fake", "real_key"}
        assert not aux.method.seen["real_key"]["features"].requires_grad
        with torch.no_grad():
            disc.head.weight += 1.0
    torch.testing.assert_close(aux.momentum.encoder.head.weight, start + 0.5)  # the second step is still due
    assert aux.method.updates == 1
    twin = attached(Disc(), Keyed)
    twin.load_state_dict(aux.state_dict())
    for one in (aux, twin):
        with one:
            pass
    assert aux.method.updates == 2 and twin.method.updates == 1
    torch.testing.assert_close(aux.momentum.encoder.head.weight, start + 1.25)
    assert not any(parameter.requires_grad for parameter in aux.momentum.parameters())


def test_context_is_checked(disc):
    aux = attached(disc, Keyed)

    def loss(**context):
        with aux:
            disc(images(3, 1)), disc(images(3, 2))
        return aux.loss(**context)

    with pytest.raises(ValueError, match=r"Keyed needs loss\(real_key=\.\.\.\), which was not given"):
        loss()
    with pytest.raises(ValueError, match="Keyed takes labels, real_key in loss\\(\\), got label="):
        loss(real_key=images(), label=torch.zeros(3))


def test_features_are_float32_under_autocast(disc):
    aux = attached(disc)
    with torch.autocast("cpu", torch.bfloat16):
        with aux:
            scores = disc(images(3, 1)), disc(images(3, 2))
        loss = aux.loss()
    assert scores[0].dtype == torch.bfloat16 and loss.dtype == torch.float32
    assert aux.method.seen["real"]["features"].dtype == torch.float32


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = Outputs()
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.trunk(x)["features"])


class Outputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 4)

    def forward(self, x):
        z = self.linear(x.flatten(1))
        return {"features": z, "pair": (z, 2 * z)}


def test_items_of_outputs():
    model = Twice()
    aux = attach(model, at="trunk[features]", objective=Gap, example=images())
    with aux:
        model(images(3, 1)), model(images(3, 2))
    assert aux.loss().requires_grad and aux.places == {"features": "trunk[features]"}
    with pytest.raises(ValueError, match="trunk puts out a dict of features, pair: choose trunk\\[features\\] or"):
        attach(model, at="trunk", objective=Gap, example=images())
    with pytest.raises(ValueError, match="puts out a dict of features, pair, which has no item 'feature'"):
        attach(model, at="trunk[feature]", objective=Gap, example=images())
    assert not model.trunk._forward_hooks or len(model.trunk._forward_hooks) == 1  # only the first attach's


@pytest.mark.parametrize(("pool", "dim"), [("mean", 6), ("sum", 6), ("max", 6), ("flatten", 24)])
def test_pools(disc, pool, dim):
    aux = attached(disc, pool=pool)
    with aux:
        disc(images(3, 1)), disc(images(3, 2))
    aux.loss()
    assert aux.method.seen["real"]["features"].shape == (3, dim)
    with pytest.raises(ValueError, match="unknown pool 'avg'"):
        attached(disc, pool="avg")


def test_sizes_need_an_example(disc):
    with pytest.raises(ValueError, match=r"heads, whose size a forward pass tells: attach\(\.\.\., example="):
        attach(disc, at="body", objective=Gap)


def test_no_parameters_are_no_error_for_the_optimizer(disc):
    class Headless(Gap):
        def __init__(self, sizes):
            GenerativeMethod.__init__(self)
            self.register_buffer("scale", torch.ones(()))

    aux = attach(disc, at="body", objective=Headless)
    torch.optim.Adam(disc.parameters()).add_param_group({"params": aux.parameters()})
    with aux:
        disc(images(3, 1)), disc(images(3, 2))
    aux.loss().backward()


def test_as_module(disc):
    aux = attached(disc)
    unit = aux.as_module()
    (real, fake), loss = unit(images(3, 1), (images(3, 2),))
    assert real.shape == fake.shape == (3, 1) and loss.requires_grad
    assert {name.split(".")[0] for name in unit.state_dict()} == {"model", "auxiliary"}
    (_,), term = unit(images(3), generator=True)
    assert term.requires_grad
