"""SPR against its equation written out in loops, and where its gradient goes."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core import Pairs
from contraux.core.encoders import ProjectionHead
from contraux.core.losses import vicreg
from contraux.core.preset import build, preset
from contraux.core.temporal import SPR, LatentTransition, roll_out

LINEAR = partial(ProjectionHead, hidden=None, out=4)


def batch(n=5, k=3, d=6, a=2, dtype=torch.float32):
    torch.manual_seed(0)
    query, key = (torch.randn(rows, d, dtype=dtype, requires_grad=True) for rows in (n, k * n))
    return Pairs(query, key, torch.arange(n), context={"action": torch.randn(n, k, a)})


def spr(d=6, a=2, **settings):
    torch.manual_seed(1)
    return SPR(d, action_dim=a, **{"hidden": 8, "projection": LINEAR, "prediction": LINEAR, **settings})


def test_the_roll_out_by_hand():
    z = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=torch.float64)
    action = torch.tensor([[[1.0], [2.0]], [[0.0], [3.0]]], dtype=torch.float64)
    # h(z, a) = 2 z + a: (1, 2) -> (3, 5) -> (8, 12); (0, -1) -> (0, -2) -> (3, -1)
    rolled = roll_out(lambda features, taken: 2 * features + taken, z, action)
    assert rolled.tolist() == [[[3, 5], [0, -2]], [[8, 12], [3, -1]]]


def test_the_loss_by_hand():
    objective = SPR(2, action_dim=1).double()  # no heads: features are compared as they are
    objective.transition.forward = lambda features, taken: features + taken
    query = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    action = torch.tensor([[[0.0], [3.0]], [[1.0], [0.0]]], dtype=torch.float64)
    # predictions, step 1: (1, 0), (1, 3); step 2: (4, 3), (1, 3)
    key = torch.tensor([[3.0, 4.0], [2.0, 6.0], [4.0, -3.0], [0.0, 5.0]], dtype=torch.float64)
    # cosines, step 1: 3/5, 1; step 2: (16 - 9) / 25, 3 / sqrt 10
    outcome = objective(Pairs(query, key, torch.arange(2), context={"action": action}))
    first, last = (0.6 + 1) / 2, (7 / 25 + 3 / math.sqrt(10)) / 2
    assert outcome.loss.item() == pytest.approx(-(first + last), abs=1e-12)
    assert outcome.metrics["similarity_first"].item() == pytest.approx(first, abs=1e-6)
    assert outcome.metrics["similarity_last"].item() == pytest.approx(last, abs=1e-6)
    assert outcome.metrics["positive_similarity"].item() == pytest.approx((first + last) / 2, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 7))
def test_it_is_the_equation_in_loops(n, k, d):
    pairs = batch(n, k, d, dtype=torch.float64)
    objective = spr(d).double()
    first, last = objective.transition.layers[0], objective.transition.layers[2]
    projection, prediction, copy = (
        module.layers[0] for module in
        (objective.compare.projection, objective.compare.prediction, objective.compare.momentum.encoder)
    )  # fmt: skip
    with torch.no_grad():
        copy.weight.add_(0.3)  # not the projection any more
    expected = 0.0
    for i in range(n):
        z = pairs.query[i]
        for j in range(k):
            centred = z - z.mean()
            normed = centred / torch.sqrt((centred**2).mean() + 1e-5)
            hidden = first.weight @ torch.cat((normed, pairs.context["action"][i, j].double())) + first.bias
            z = z + last.weight @ (hidden * (hidden > 0)) + last.bias
            y = projection.weight @ z + projection.bias
            y = prediction.weight @ y + prediction.bias
            target = copy.weight @ pairs.key[j * n + i] + copy.bias
            expected = expected - (y @ target) / torch.sqrt((y @ y) * (target @ target)) / n
    torch.testing.assert_close(objective(pairs).loss, expected, rtol=1e-9, atol=1e-9)


def test_the_gradient_reaches_query_transition_and_heads_but_no_key_and_no_copy():
    pairs, objective = batch(), spr()
    loss = objective(pairs).loss
    learned = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    query, key, *heads = torch.autograd.grad(loss, [pairs.query, pairs.key, *learned], allow_unused=True)
    assert query.abs().max() > 0 and key is None
    assert len(heads) == 6 + 2 + 2 and all(gradient.abs().max() > 0 for gradient in heads)
    assert not any(parameter.requires_grad for parameter in objective.compare.momentum.parameters())


def test_every_action_counts_from_its_step_on():
    """Actions of the last step change the prediction of that step alone, those of the first all of them."""
    pairs, objective = batch(), spr()
    before = roll_out(objective.transition, pairs.query, pairs.context["action"])
    for step in range(3):
        action = pairs.context["action"].clone()
        action[:, step] += 1.0
        moved = (roll_out(objective.transition, pairs.query, action) != before).flatten(1).any(1)
        assert moved.tolist() == [ahead >= step for ahead in range(3)]


def test_the_copy_of_the_projection_follows_at_its_momentum():
    objective = spr(momentum=0.9)
    before = objective.compare.momentum.encoder.layers[0].weight.clone()
    with torch.no_grad():
        objective.compare.projection.layers[0].weight.add_(1.0)
    objective.update()
    torch.testing.assert_close(objective.compare.momentum.encoder.layers[0].weight, before + 0.1)


def test_another_loss_of_paired_rows_is_taken_step_by_step():
    pairs, objective = batch(), spr(loss=vicreg, momentum=None, projection=None, prediction=None)
    rolled = roll_out(objective.transition, pairs.query, pairs.context["action"])
    expected = sum(vicreg(one, other) for one, other in zip(rolled, pairs.key.split(5), strict=True))
    torch.testing.assert_close(objective(pairs).loss, expected)


def test_it_learns_which_action_leads_where():
    """A point on a circle, seen in 8 dimensions, turns left or right as the action says, and so do the predictions."""
    torch.manual_seed(0)
    objective, seen = SPR(8, action_dim=2, hidden=64), torch.linalg.qr(torch.randn(8, 2)).Q.T
    optimizer = torch.optim.Adam(objective.parameters(), 1e-2)

    def draw(n=256):
        angle, taken = torch.rand(n) * 2 * math.pi, torch.randint(2, (n, 2))
        after = angle + ((2 * taken - 1) * 0.8).cumsum(1).T
        points = [torch.stack((a.cos(), a.sin()), 1) @ seen for a in (angle, *after)]
        action = torch.nn.functional.one_hot(taken, 2).float()
        return Pairs(points[0], torch.cat(points[1:]), torch.arange(n), context={"action": action})

    for _ in range(100):
        optimizer.zero_grad()
        objective(draw()).loss.backward()
        optimizer.step()
    pairs = draw()
    assert objective(pairs).metrics["similarity_last"] > 0.98
    blind = pairs._replace(context={"action": pairs.context["action"].flip(2)})
    assert objective(blind).metrics["similarity_last"] < 0.5


def test_what_does_not_fit_is_refused_in_one_sentence():
    pairs, objective = batch(), spr()
    with pytest.raises(ValueError, match=r"SPR needs the actions in the context as 'action' .*, got none"):
        objective(pairs._replace(context={}))
    with pytest.raises(
        ValueError, match=r"queries \(N, 6\), actions \(N, K, 2\) and keys \(K N, 6\), got \(5, 6\), .*"
    ):
        objective(pairs._replace(key=pairs.key[:-1]))
    with pytest.raises(ValueError, match=r"actions \(N, K, 2\).*\(5, 3, 1\)"):
        objective(pairs._replace(context={"action": torch.zeros(5, 3, 1)}))
    with pytest.raises(ValueError, match="hidden must be a whole number >= 1, got 0"):
        LatentTransition(6, 2, 0)
    with pytest.raises(ValueError, match="needs a loss of paired rows, got info_nce"):
        build(preset("spr", "loss=info_nce").module)(6, action_dim=2)


def test_the_preset_is_what_the_paper_says():
    config = preset("spr")
    objective = build(config.module)(32, action_dim=4)
    assert config.source.k == 5 and config.source.momentum == objective.compare.momentum.momentum == 0.0
    assert [type(layer).__name__ for layer in objective.compare.prediction.layers] == ["Linear"]
    slow = preset("spr", "source.views.image=null", "source.momentum=0.99")
    assert build(slow.module)(32, action_dim=4).compare.momentum.momentum == 0.99
