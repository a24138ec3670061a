"""Label-supervised contrast against loops in float64."""

import math
from functools import partial

import pytest
import torch

from contraux.clgen.diffusion import LabelSupCon
from contraux.core import Contrastive
from contraux.core.losses import sup_con

LABELS = torch.tensor([0, 1, 0, -1, 1, 0, 2, -1, 5, 5])  # 2 stands alone; 5 is the null class


def method(null_class=5):
    objective = partial(Contrastive, loss=sup_con, temperature=0.3)
    return LabelSupCon({"features": (4,)}, objective=objective, null_class=null_class)


def of(made, features, labels=LABELS):
    return made({"denoise": {"features": features}}, {"labels": labels})


def by_loops(features, labels, known):
    h, y = features.double().tolist(), labels.tolist()
    losses = []
    for i in range(len(h)):
        scaled = {
            j: sum(p * q for p, q in zip(h[i], h[j], strict=True)) / math.hypot(*h[i]) / math.hypot(*h[j]) / 0.3
            for j in range(len(h))
            if j != i and y[j] in known
        }
        positives = [j for j in scaled if y[j] == y[i] and y[i] in known]
        if positives:
            whole = math.log(sum(map(math.exp, scaled.values())))
            losses.append(sum(whole - scaled[j] for j in positives) / len(positives))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("null_class", "known"), [(5, {0, 1, 2}), (None, {0, 1, 2, 5})])
def test_against_loops(null_class, known):
    features = torch.randn(10, 4)
    outcome = of(method(null_class), features)
    assert outcome.loss.item() == pytest.approx(by_loops(features, LABELS, known), rel=1e-5)
    assert outcome.metrics["labelled"].item() == pytest.approx(0.5 if null_class == 5 else 0.7)


def test_rows_without_a_label_have_no_part():
    features = torch.randn(10, 4, requires_grad=True)
    of(method(), features).loss.backward()
    has_part = features.grad.abs().sum(1) > 0
    assert has_part.tolist() == [label in (0, 1, 2) for label in LABELS.tolist()]


def test_labels_of_another_shape():
    with pytest.raises(ValueError, match=r"labels must be one for each of the 10 rows, \(10,\), got \(9,\)"):
        of(method(), torch.randn(10, 4), LABELS[:9])


def test_without_labels_the_loss_is_zero():
    features = torch.randn(4, 4, requires_grad=True)
    for labels in (torch.full((4,), -1), torch.arange(4), torch.full((4,), 5)):
        outcome = of(method(), features, labels)
        outcome.loss.backward()
        assert outcome.loss.item() == 0 and not features.grad.any()
