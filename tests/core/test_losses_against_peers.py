"""The same numbers and gradients as libraries people know, where their formulas agree; where not, the test says how."""

import pytest
import torch

from contraux.core import two_view_pairs
from contraux.core.losses import (
    alignment_uniformity,
    barlow_twins,
    clip,
    dclw,
    decoupled,
    info_nce,
    negative_cosine,
    nt_xent,
    pairwise_info_nce,
    sig_lip,
    sup_con,
    triplet,
    vicreg,
)
from contraux.core.similarity import cosine, negative_euclidean

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers


def views(n=12, d=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return a.requires_grad_(), (
        a.detach() + torch.randn(n, d, generator=generator, dtype=torch.float64)
    ).requires_grad_()


def agree(ours, theirs, inputs, rtol=1e-9):
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=rtol, atol=1e-12)
    for mine, other in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        assert mine.abs().max() > 1e-6
        torch.testing.assert_close(mine, other, rtol=rtol * 10, atol=rtol)


def two_views(a, b):
    """Similarities of all views with all, each row's partner, and weights that leave out the row itself."""
    pairs = two_view_pairs(a, b)
    return cosine(pairs.query, pairs.key), pairs.positive, 1 - torch.eye(2 * len(a), dtype=a.dtype)


def labelled(classes=4, each=5, d=6):
    """Rows with balanced labels: similarities of all with all, positives without the row itself, and weights."""
    features = torch.randn(classes * each, d, dtype=torch.float64).requires_grad_()
    labels = torch.arange(classes).repeat(each)
    itself = torch.eye(len(labels), dtype=torch.bool)
    return features, labels, (labels[:, None] == labels) & ~itself, (~itself).double()


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_lightly_nt_xent_and_dcl(temperature):
    loss = pytest.importorskip("lightly.loss")
    a, b = views()
    similarity, positive, weights = two_views(a, b)
    expected = loss.NTXentLoss(temperature)(a, b)
    agree(nt_xent(similarity, positive, None, temperature), expected, [a, b])
    similarity, positive, weights = two_views(a, b)
    agree(info_nce(similarity, positive, weights, temperature), loss.NTXentLoss(temperature)(a, b), [a, b])
    similarity, positive, weights = two_views(a, b)
    agree(decoupled(similarity, positive, weights, temperature), loss.DCLLoss(temperature)(a, b), [a, b])


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_lightly_dclw(sigma):
    """Its weights are normalised over the N pairs, ours over the 2N views; both directions have the same positives."""
    loss = pytest.importorskip("lightly.loss")
    a, b = views()
    similarity, positive, weights = two_views(a, b)
    agree(dclw(similarity, positive, weights, 0.2, sigma), loss.DCLWLoss(0.2, sigma)(a, b), [a, b])


def test_lightly_losses_without_negatives():
    loss = pytest.importorskip("lightly.loss")
    a, b = views()
    agree(negative_cosine(a, b), loss.NegativeCosineSimilarity()(a, b), [a, b])
    agree(vicreg(a, b), loss.VICRegLoss()(a, b), [a, b])
    agree(vicreg(a, b, 2.0, 3.0, 4.0), loss.VICRegLoss(2.0, 3.0, 4.0)(a, b), [a, b])
    agree(barlow_twins(a, b), loss.BarlowTwinsLoss()(a, b), [a, b])
    agree(barlow_twins(a, b, 0.3), loss.BarlowTwinsLoss(0.3)(a, b), [a, b])
    hypersphere = pytest.importorskip("lightly.loss.hypersphere_loss")
    peer = hypersphere.HypersphereLoss(t=1.5, lam=0.7, alpha=3.0)
    agree(alignment_uniformity(a, b, 1.0, 0.7, alpha=3.0, t=1.5), peer(a, b), [a, b])


def test_metric_learning_sup_con():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    features, labels, positive, weights = labelled()
    ours = sup_con(cosine(features, features), positive, weights, 0.2)
    agree(ours, losses.SupConLoss(temperature=0.2)(features, labels), [features])


def test_metric_learning_nt_xent():
    """Its denominator leaves out the other positives; with two views there are none."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    a, b = views()
    similarity, positive, _ = two_views(a, b)
    labels = torch.arange(len(a)).repeat(2)
    expected = losses.NTXentLoss(temperature=0.3)(torch.cat((a, b)), labels)
    agree(nt_xent(similarity, positive, None, 0.3), expected, [a, b], rtol=1e-6)  # it adds a small number to logarithms


def test_metric_learning_nt_xent_with_several_positives():
    """Each pair alone against the negatives; it takes the mean over all pairs, which are as many for every row here."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    a, b = views()
    features = torch.cat((a, b, (a - b).detach()))
    labels = torch.arange(len(a)).repeat(3)
    positive = (labels.unsqueeze(1) == labels) & ~torch.eye(len(labels), dtype=torch.bool)
    weights = (labels.unsqueeze(1) != labels).double()
    ours = pairwise_info_nce(cosine(features, features), positive, weights, 0.3)
    agree(ours, losses.NTXentLoss(temperature=0.3)(features, labels), [a, b], rtol=1e-6)


@pytest.mark.parametrize("margin", [0.05, 0.5])
def test_metric_learning_triplet(margin):
    """By default it leaves triplets of loss 0 out of the mean; `MeanReducer` keeps them, as we do."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    reducers = pytest.importorskip("pytorch_metric_learning.reducers")
    features, labels, positive, weights = labelled()
    mean = reducers.MeanReducer()
    peer = losses.TripletMarginLoss(margin, distance=distances.CosineSimilarity(), reducer=mean)
    agree(triplet(cosine(features, features), positive, weights, margin), peer(features, labels), [features])
    plain = distances.LpDistance(normalize_embeddings=False)
    peer = losses.TripletMarginLoss(margin, distance=plain, reducer=mean)
    ours = triplet(negative_euclidean(features, features), positive, weights, margin)
    agree(ours, peer(features, labels), [features], rtol=1e-6)


def test_open_clip():
    """It takes rows of norm 1 and 1 / temperature; a pair's index is its row."""
    loss = pytest.importorskip("open_clip.loss")
    a, b = views()
    index = torch.arange(len(a))
    unit = torch.nn.functional.normalize
    expected = loss.ClipLoss()(unit(a), unit(b), 1 / 0.07)
    agree(clip(cosine(a, b), index, None, 0.07), expected, [a, b])
    scale, bias = torch.tensor(10.0, dtype=torch.float64), torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
    expected = loss.SigLipLoss()(unit(a), unit(b), scale, bias)
    agree(sig_lip(cosine(a, b), index, None, 0.1, bias), expected, [a, b, bias])
