"""ST-DIM: its two losses by hand, against loops, in blocks, and where the gradient goes."""

import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contraux.core import Pairs
from contraux.core.temporal import STDIM
from contraux.core.temporal.positions import local_info_nce


def maps(n=4, positions=3, dim=5, channels=2, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    query, key, local = (
        torch.randn(*shape, dtype=dtype, requires_grad=True)
        for shape in ((n, dim), (positions * n, channels), (positions * n, channels))
    )
    return Pairs(query, key, torch.arange(n), context={"key_local": local})


@torch.no_grad()
def by_loops(objective, pairs):
    """Both losses and accuracies, one position, window and candidate after another."""
    n = len(pairs.query)
    positions = len(pairs.key) // n
    seen = {}
    for kind in ("global", "local"):
        losses, right = [], []
        for position in range(positions):
            for i in range(n):
                if kind == "global":
                    predicted = pairs.query[i] @ objective.global_weight.weight.T
                else:
                    predicted = pairs.context["key_local"][position * n + i] @ objective.local_weight
                scores = [float(predicted @ pairs.key[position * n + m]) for m in range(n)]
                losses.append(math.log(sum(math.exp(score) for score in scores)) - scores[i])
                right.append(scores[i] > max(score for m, score in enumerate(scores) if m != i))
        seen[kind] = sum(losses) / len(losses), sum(right) / len(right)
    return seen


def test_against_loops():
    pairs, objective = maps(), STDIM(5, local_dim=2).double()
    with torch.no_grad():
        objective.local_weight.add_(torch.tensor([[0.0, 0.7], [-0.4, 0.0]]))  # not symmetric
    outcome, seen = objective(pairs), by_loops(objective, pairs)
    assert outcome.loss.item() == pytest.approx(seen["global"][0] + seen["local"][0], rel=1e-12)
    assert outcome.metrics["accuracy_global"].item() == pytest.approx(seen["global"][1])
    assert outcome.metrics["accuracy_local"].item() == pytest.approx(seen["local"][1])
    assert outcome.metrics["accuracy"].item() == pytest.approx((seen["global"][1] + seen["local"][1]) / 2)
    information = math.log(4) - outcome.loss.item() / 2
    assert outcome.metrics["mutual_information"].item() == pytest.approx(information, rel=1e-9)


def test_two_windows_at_two_positions_by_hand():
    objective = STDIM(1, local_dim=1).double()
    with torch.no_grad():
        objective.global_weight.weight.fill_(2.0)
        objective.local_weight.fill_(0.5)
    query = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    after = torch.tensor([[1.0], [0.0], [0.0], [3.0]], dtype=torch.float64)  # window 1, 2 at place 1; at place 2
    before = torch.tensor([[2.0], [4.0], [0.0], [2.0]], dtype=torch.float64)
    outcome = objective(Pairs(query, after, torch.arange(2), context={"key_local": before}))
    # global, W f(o_t) = 2 and -2. Place 1: scores (2, 0) and (-2, 0). Place 2: (0, 6) and (0, -6)
    by_global = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-2)), math.log(1 + math.exp(6))]
    by_global.append(math.log(1 + math.exp(6)))
    # local, f_l W = 1 and 2 at place 1: scores (1, 0) and (2, 0); 0 and 1 at place 2: (0, 0) and (0, 3)
    by_local = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(2)), math.log(2), math.log(1 + math.exp(-3))]
    assert outcome.loss.item() == pytest.approx(sum(by_global) / 4 + sum(by_local) / 4, rel=1e-12)
    assert outcome.metrics["accuracy_global"] == 0.5
    assert outcome.metrics["accuracy_local"] == 0.5  # a tie is not correct


def test_gradient_goes_through_every_feature_and_both_weights():
    pairs, objective = maps(), STDIM(5, local_dim=2).double()
    wanted = [pairs.query, pairs.key, pairs.context["key_local"], *objective.parameters()]
    assert len(wanted) == 5
    for gradient in torch.autograd.grad(objective(pairs).loss, wanted):
        assert gradient.isfinite().all() and (gradient.flatten(1).abs().amax(1) > 0).all()


def test_gradients_are_those_of_differences():
    pairs, objective = maps(n=3, positions=2), STDIM(5, local_dim=2).double()

    def loss(query, key, local):
        return objective(Pairs(query, key, torch.arange(3), context={"key_local": local})).loss

    assert torch.autograd.gradcheck(loss, (pairs.query, pairs.key, pairs.context["key_local"]))


@given(n=st.integers(2, 5), positions=st.integers(1, 5), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_neither_the_order_of_windows_nor_that_of_positions_matters(n, positions, seed):
    pairs, objective = maps(n, positions, seed=seed), STDIM(5, local_dim=2).double()
    windows, places = torch.randperm(n), torch.randperm(positions)

    def moved(rows):
        return rows.unflatten(0, (positions, n))[places][:, windows].flatten(0, 1)

    other = Pairs(
        pairs.query[windows], moved(pairs.key), pairs.positive, context={"key_local": moved(pairs.context["key_local"])}
    )
    torch.testing.assert_close(objective(other).loss, objective(pairs).loss)
    # but the two maps must be moved alike
    one_sided = pairs._replace(context={"key_local": pairs.context["key_local"].roll(1, 0)})
    assert not torch.isclose(objective(one_sided).loss, objective(pairs).loss, rtol=1e-9)


@pytest.mark.parametrize("spread", [False, True], ids=["a query a position", "one query"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_blocks_of_positions_give_the_same_loss_metrics_and_gradient(spread, size, monkeypatch):
    torch.manual_seed(1)
    query = torch.randn(*((4, 3) if spread else (7, 4, 3)), requires_grad=True, dtype=torch.float64)
    key = torch.randn(7, 4, 3, requires_grad=True, dtype=torch.float64)
    loss, metrics = local_info_nce(query, key)
    gradients = torch.autograd.grad(3 * loss, (query, key))
    module = "contraux.core.temporal.positions"
    monkeypatch.setattr(f"{module}.WHOLE", 0)
    monkeypatch.setattr(f"{module}.CELLS", size * 16)
    in_blocks, seen = local_info_nce(query, key)
    torch.testing.assert_close(in_blocks, loss)
    torch.testing.assert_close(torch.autograd.grad(3 * in_blocks, (query, key)), gradients)
    torch.testing.assert_close(seen, metrics)
    with torch.no_grad():
        torch.testing.assert_close(local_info_nce(query, key), (loss.detach(), metrics))
    (one,) = torch.autograd.grad(local_info_nce(query.detach(), key)[0], key)  # only one side wants a gradient
    torch.testing.assert_close(3 * one, gradients[1])


def test_large_maps_hold_a_block_of_scores_at_a_time_and_leave_none_behind():
    """Above 2^22 scores, 64 windows at 2048 positions, the graph keeps gradients and not 32 MiB of scores."""
    query, key = (torch.randn(2048, 64, 2, requires_grad=True) for _ in range(2))
    kept = []

    def keep(tensor):
        kept.append((tensor.numel(), weakref.ref(tensor)))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = local_info_nce(query, key)
    assert loss.isfinite()
    assert max(size for size, _ in kept) == 2**20
    assert sum(size for size, tensor in kept if tensor() is not None) <= query.numel() + key.numel()


def test_wrong_shapes_say_so():
    objective = STDIM(5, local_dim=2)
    pairs = maps(dtype=torch.float32)
    with pytest.raises(ValueError, match="needs the feature map of the query in the context as 'key_local'"):
        objective(pairs._replace(context={}))
    with pytest.raises(ValueError, match=r"keys \(L N, 2\) and a key_local like the keys, .*\(12, 2\) and \(8, 2\)"):
        objective(pairs._replace(context={"key_local": torch.zeros(8, 2)}))
    with pytest.raises(ValueError, match=r"needs queries \(N, 5\)"):
        objective(maps(dim=6, dtype=torch.float32))
    with pytest.raises(ValueError, match=r"keys \(L N, 2\)"):
        objective(pairs._replace(query=torch.zeros(5, 5)))  # 12 rows are no multiple of 5
    with pytest.raises(ValueError, match="local_dim must be a whole number >= 1, got 0"):
        STDIM(5, local_dim=0)
    with pytest.raises(ValueError, match=r"query must be \(L, N, C\) or \(N, C\) for keys \(L, N, C\), got \(3, 2\)"):
        local_info_nce(torch.zeros(3, 2), torch.zeros(2, 4, 2))


def test_half_precision_is_compared_in_float32():
    pairs, objective = maps(dtype=torch.float32), STDIM(5, local_dim=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outcome = objective(pairs)
    assert outcome.loss.dtype == torch.float32
    torch.testing.assert_close(outcome.loss, objective(pairs).loss, rtol=0.03, atol=0.03)
    assert isinstance(objective.local_weight, nn.Parameter)
