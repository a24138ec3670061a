import math
from functools import partial

import pytest
import torch
from torch import nn

from contraux.core import Contrastive, LearnedTemperature, Pairs, auxiliary_gradients, two_view_pairs
from contraux.core.encoders import MLP, PredictionHead, ProjectionHead
from contraux.core.losses import HardNegative, info_nce, nt_xent, triplet
from contraux.core.samplers import Queue
from contraux.core.similarity import Bilinear, cosine, dot

HEAD = partial(ProjectionHead, hidden=16, out=8)


def pairs(n=6, m=6, d=10, dtype=torch.float32):
    query = torch.randn(n, d, dtype=dtype, requires_grad=True)
    key = torch.randn(m, d, dtype=dtype, requires_grad=True)
    return Pairs(query, key, torch.arange(n))


def test_without_heads_it_is_the_loss_of_the_similarity():
    batch = pairs()
    outcome = Contrastive(10, temperature=0.3)(batch)
    expected = info_nce(cosine(batch.query, batch.key), batch.positive, temperature=0.3)
    torch.testing.assert_close(outcome.loss, expected)
    assert set(outcome.metrics) == {"accuracy", "mutual_information", "positive_similarity", "negative_similarity"}
    bound = math.log(6) - outcome.loss.item()
    assert outcome.metrics["mutual_information"].item() == pytest.approx(bound, rel=1e-5)


def test_heads_are_where_the_docstring_says():
    objective = Contrastive(10, projection=HEAD, prediction=PredictionHead, similarity=dot, temperature=1.0)
    batch = pairs()
    query = objective.prediction(objective.projection(batch.query))
    expected = info_nce(query @ objective.projection(batch.key).T, batch.positive, temperature=1.0)
    torch.testing.assert_close(objective(batch).loss, expected)


def test_momentum_keys_get_no_gradient_and_follow():
    objective = Contrastive(10, projection=HEAD, momentum=0.9)
    batch = pairs()
    parameters = [*objective.projection.parameters(), batch.query, batch.key]
    *_, query, key = torch.autograd.grad(objective(batch).loss, parameters, allow_unused=True)
    assert query.abs().max() > 0 and key is None
    start = [p.clone() for p in objective.projection.parameters()]
    with torch.no_grad():
        for parameter in objective.projection.parameters():
            parameter.add_(1.0)
    objective.update()
    for now, before in zip(objective.momentum.parameters(), start, strict=True):
        torch.testing.assert_close(now, before + 0.1)
    # the keys really pass through the average
    expected = info_nce(cosine(objective.projection(batch.query), objective.momentum(batch.key)), batch.positive)
    torch.testing.assert_close(objective(batch).loss, expected)


def test_momentum_without_projection_stops_the_gradient_of_keys():
    batch = pairs()
    loss = Contrastive(10, momentum=0.5)(batch).loss
    assert torch.autograd.grad(loss, batch.key, allow_unused=True)[0] is None


def test_the_gradient_reaches_an_encoder_and_lowers_the_loss():
    encoder = MLP(5, [16], 10)
    objective = Contrastive(10, projection=HEAD)
    optimizer = torch.optim.SGD([*encoder.parameters(), *objective.parameters()], lr=0.1)
    x = torch.randn(16, 5)
    losses = []
    for _ in range(30):
        loss = objective(Pairs(encoder(x), encoder(x + 0.01), torch.arange(16))).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in encoder.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_gradient_in_float64():
    objective = Contrastive(4, projection=partial(ProjectionHead, hidden=5, out=3), prediction=PredictionHead).double()
    key = torch.randn(3, 4, dtype=torch.float64)
    query = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q: objective(Pairs(q, key, torch.arange(3))).loss, query)


def test_queue_columns_are_negatives_and_masks_are_widened():
    queue = Queue(10, 20)
    objective = Contrastive(10, sampler=queue, similarity=dot, temperature=1.0)
    first, second = pairs(), pairs()
    objective(first)
    assert len(queue) == 0 and len(objective.sampler) == 6  # the objective owns a copy
    columns = torch.cat((second.key, first.key))
    similarity = second.query @ columns.T
    expected = info_nce(similarity, second.positive, temperature=1.0)
    objective.eval()
    for positive in (second.positive, torch.eye(6).bool(), torch.eye(6)):
        torch.testing.assert_close(objective(second._replace(positive=positive)).loss, expected)
    exclude = torch.zeros(6, 6, dtype=torch.bool)
    exclude[0, 3] = True
    weights = torch.ones(6, 12)
    weights[0, 3] = 0.0
    expected = info_nce(similarity, second.positive, weights, temperature=1.0)
    torch.testing.assert_close(objective(second._replace(exclude=exclude)).loss, expected)
    assert len(objective.sampler) == 6  # evaluation remembered nothing


def test_two_views_run_the_projection_once():
    objective = Contrastive(10, projection=HEAD, loss=nt_xent, temperature=0.5)
    calls = []
    objective.projection.register_forward_hook(lambda *_: calls.append(1))
    a, b = torch.randn(4, 10), torch.randn(4, 10)
    outcome = objective(two_view_pairs(a, b))
    assert calls == [1]
    z = objective.projection(torch.cat((a, b)))
    torch.testing.assert_close(outcome.loss, nt_xent(cosine(z, z), torch.arange(8).roll(4), temperature=0.5))
    assert outcome.metrics["negative_similarity"] < 1  # itself does not count


def test_state_round_trip():
    make = partial(Contrastive, 10, projection=HEAD, momentum=0.9, similarity=Bilinear(8), sampler=Queue(8, 9))
    one, other = make(), make()
    for _ in range(2):
        one(pairs())
    one.update()
    other.load_state_dict(one.state_dict())
    batch = pairs()
    assert torch.equal(one(batch).loss, other(batch).loss)


def test_two_objectives_of_one_description_share_nothing():
    make = partial(Contrastive, projection=HEAD, similarity=Bilinear(8), sampler=Queue(8, 9))
    one, other = make(10), make(12)
    assert one.similarity is not other.similarity and one.sampler is not other.sampler
    one(pairs())
    assert len(other.sampler) == 0


def test_similarity_stays_float32_under_autocast():
    seen = []
    similarity = lambda q, k: seen.append((q.dtype, cosine(q, k))) or seen[-1][1]  # noqa: E731
    objective = Contrastive(10, projection=HEAD, similarity=similarity)
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outcome = objective(pairs())
    assert seen[0][0] == torch.bfloat16 and seen[0][1].dtype == torch.float32
    assert outcome.loss.dtype == torch.float32 and outcome.metrics["accuracy"].dtype == torch.float32


def test_same_seed_same_loss_and_no_draw_at_run_time():
    torch.manual_seed(3)
    objective, batch = Contrastive(10, projection=HEAD, momentum=0.9, sampler=Queue(8, 4)), pairs()
    before = torch.get_rng_state()
    objective(batch).loss.backward()
    objective.update()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_nothing_waits_for_the_device(exclude, mask):
    # Tensors on the meta device have no values: whatever reads one (and would stall a GPU) raises.
    objective = Contrastive(10, projection=HEAD, prediction=PredictionHead, momentum=0.9, sampler=Queue(8, 9)).to(
        "meta"
    )
    query, key = (torch.empty(6, 10, device="meta", requires_grad=True) for _ in range(2))
    positive = torch.empty(6, 6, device="meta", dtype=torch.bool) if mask else torch.arange(6, device="meta")
    excluded = torch.empty(6, 6, device="meta", dtype=torch.bool) if exclude else None
    for _ in range(3):
        outcome = objective(Pairs(query, key, positive, excluded))
        gradients, outcome = auxiliary_gradients(outcome, [*objective.projection.parameters(), query], 0.5)
        objective.update()
    assert outcome.metrics["gradient_norm"].is_meta and gradients[-1].shape == (6, 10)


def narrow(dim):
    module = nn.Linear(dim, 3)
    module.out_features = 4
    return module


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"temperature": -1.0}, "temperature must be a number > 0, got -1.0"),
        ({"momentum": 1.0}, r"momentum must be a number in \[0, 1\), got 1.0"),
        ({"projection": narrow}, r"projection must turn \(2, 10\) into \(2, 4\), its out_features, got \(2, 3\)"),
        ({"projection": lambda dim: nn.ReLU()}, "must make a module with an integer `out_features`, got ReLU"),
        ({"prediction": HEAD}, "prediction must keep the dimension 10 of the projections, got 8"),
        ({"similarity": Bilinear(8)}, r"weight \(10, 10\) for these features, got \(8, 8\)"),
        ({"sampler": Queue(8, 4)}, r"a queue of dimension 8 needs keys \(M, 8\), got \(2, 10\)"),
    ],
)
def test_wrong_construction(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Contrastive(10, **change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"query": torch.zeros(6, 64)}, r"features have dimension 64, the objective was built for 10 \(in query\)"),
        ({"key": torch.zeros(6)}, r"features have shape \(6,\), the objective was built for 10 \(in key\)"),
        ({"positive": torch.zeros(5).long()}, r"positive must be long \(6,\)"),
        (
            {"exclude": torch.zeros(6, 5).bool()},
            r"exclude must be bool \(6, 6\) or long \(6,\), queries x keys, got torch.bool \(6, 5",
        ),
        ({"exclude": torch.zeros(6, 6)}, "got torch.float32"),
    ],
)
def test_wrong_pairs(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Contrastive(10)(pairs()._replace(**change))


def test_a_learned_temperature_is_learned_and_reported():
    objective = Contrastive(10, temperature=LearnedTemperature(0.3))
    batch = pairs()
    outcome = objective(batch)
    torch.testing.assert_close(outcome.loss, Contrastive(10, temperature=0.3)(batch).loss)
    assert outcome.metrics["temperature"].item() == pytest.approx(0.3)
    (gradient,) = torch.autograd.grad(outcome.loss, list(objective.parameters()))
    step = 1e-3
    higher, lower = (Contrastive(10, temperature=0.3 * math.exp(x))(batch).loss for x in (step, -step))
    assert gradient.item() == pytest.approx((higher - lower).item() / (2 * step), rel=1e-2)


def test_a_loss_without_temperature_refuses_one():
    assert Contrastive(10, loss=triplet)(pairs()).loss > 0
    with pytest.raises(ValueError, match=r"triplet has no temperature: it must be None, got 0\.1"):
        Contrastive(10, loss=partial(triplet, margin=0.3), temperature=0.1)


def test_updates_reach_a_loss_that_anneals():
    objective = Contrastive(10, loss=HardNegative(1.0, 0.0, 5))
    objective(pairs())
    objective.update()
    assert objective.loss.done == 1
