from functools import partial

import pytest
import torch

from contraux.core import Contrastive, NegativeFree, Pairs, SameLabel, two_view_pairs
from contraux.core.encoders import MLP, PredictionHead, ProjectionHead
from contraux.core.losses import alignment_uniformity, barlow_twins, info_nce, negative_cosine, vicreg

HEAD = partial(ProjectionHead, hidden=16, out=8)
LOSSES = [negative_cosine, vicreg, barlow_twins, alignment_uniformity, partial(vicreg)]


def pairs(n=6, d=10):
    return Pairs(torch.randn(n, d, requires_grad=True), torch.randn(n, d, requires_grad=True), torch.randperm(n))


@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_the_loss_of_each_query_with_its_own_key(loss):
    objective = NegativeFree(10, projection=HEAD, prediction=PredictionHead, loss=loss)
    batch = pairs()
    query = objective.prediction(objective.projection(batch.query))
    expected = loss(query, objective.projection(batch.key)[batch.positive])
    outcome = objective(batch)
    torch.testing.assert_close(outcome.loss, expected)
    for gradient in torch.autograd.grad(outcome.loss, [batch.query, batch.key, *objective.parameters()]):
        assert gradient.abs().max() > 0


def test_byol_stops_the_gradient_at_the_key_and_its_copy_follows():
    objective = NegativeFree(10, projection=HEAD, prediction=PredictionHead, momentum=0.9)
    batch = pairs()
    *_, query, key = torch.autograd.grad(
        objective(batch).loss, [*objective.projection.parameters(), batch.query, batch.key], allow_unused=True
    )
    assert query.abs().max() > 0 and key is None
    before = [p.clone() for p in objective.momentum.parameters()]
    with torch.no_grad():
        for parameter in objective.projection.parameters():
            parameter.add_(1.0)
    objective.update()
    for now, old in zip(objective.momentum.parameters(), before, strict=True):
        torch.testing.assert_close(now, old + 0.1)


def test_two_views_in_one_batch_are_the_symmetric_loss():
    a, b = torch.randn(5, 10), torch.randn(5, 10)
    objective = NegativeFree(10, projection=HEAD, prediction=PredictionHead, momentum=0.0)
    one, other = (objective(Pairs(x, y, torch.arange(5))).loss for x, y in ((a, b), (b, a)))
    torch.testing.assert_close(objective(two_view_pairs(a, b)).loss, (one + other) / 2)


def test_metrics_see_a_collapse():
    x = torch.randn(2000, 16)
    metrics = NegativeFree(16)(Pairs(x, x, torch.arange(2000))).metrics
    assert metrics["positive_similarity"].item() == pytest.approx(1, abs=1e-5)
    assert metrics["spread"].item() == pytest.approx(1, abs=0.02)
    one = torch.randn(16).expand(2000, 16) * torch.rand(2000, 1)
    collapsed = NegativeFree(16)(Pairs(one, -one, torch.arange(2000))).metrics
    assert collapsed["positive_similarity"].item() == pytest.approx(-1, abs=1e-5)
    assert collapsed["spread"].item() == pytest.approx(0, abs=1e-3)


def test_vicreg_trains_an_encoder():
    torch.manual_seed(0)
    encoder = MLP(5, [16], 10)
    objective = NegativeFree(10, projection=HEAD, loss=vicreg)
    optimizer = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], lr=0.01)
    x, losses = torch.randn(64, 5), []
    for _ in range(40):
        noisy = (x + 0.05 * torch.randn_like(x) for _ in range(2))
        loss = objective(Pairs(*map(encoder, noisy), torch.arange(64))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_wrong_use():
    with pytest.raises(ValueError, match="NegativeFree needs a loss of paired rows, got info_nce"):
        NegativeFree(10, loss=info_nce)
    for loss in (vicreg, partial(vicreg, variance=1.0)):
        with pytest.raises(ValueError, match="Contrastive needs a loss of a similarity matrix, got vicreg"):
            Contrastive(10, loss=loss)
    with pytest.raises(ValueError, match=r"one positive, long \(6,\), got torch.bool \(6, 6\)"):
        NegativeFree(10)(pairs()._replace(positive=torch.eye(6).bool()))
    with pytest.raises(ValueError, match="got labels"):
        NegativeFree(10)(pairs()._replace(positive=SameLabel(torch.arange(6), torch.arange(6))))
    with pytest.raises(ValueError, match="features have dimension 4, the objective was built for 10"):
        NegativeFree(10)(pairs(d=4))
