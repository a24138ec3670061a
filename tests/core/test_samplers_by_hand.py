"""Hand-worked numbers and independent formulas for each sampler that does not learn."""

import math

import pytest
import torch
from torch import tensor

from contraux.core import Contrastive, Pairs
from contraux.core.losses import debiased, hard_negative, info_nce
from contraux.core.samplers import (
    CancelByGuide,
    CancelByLabel,
    CancelTopK,
    Chain,
    Debiased,
    Hardest,
    Hardness,
    InBatch,
    Margin,
    Queue,
    Random,
    SemiHard,
    Threshold,
)
from contraux.core.samplers.hardest import hardest
from contraux.core.samplers.random import mix


def weights(sampler, similarity, positive, exclude=None, context=None):
    return sampler(tensor(similarity), tensor(positive), exclude, context or {}).weights.tolist()


def test_hardest_takes_the_first_of_equals():
    similarity = [[0.9, 0.5, 0.7, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]]
    assert weights(Hardest(2), similarity, [0, 0]) == [[0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert weights(Hardest(3), similarity, [2, 4]) == [[1, 1, 0, 1, 0], [0, 1, 1, 1, 0]]
    assert weights(Hardest(9), similarity, [0, 0]) == [[0, 1, 1, 1, 1]] * 2
    excluded = tensor([[False, False, True, False, False], [False, True, True, True, True]])
    assert weights(Hardest(2), similarity, [0, 0], excluded) == [[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]


def test_hardest_is_what_sorting_says():
    similarity = (torch.rand(40, 30) * 9).round()  # many ties
    negative = torch.rand(40, 30) < 0.7
    for k in (1, 4, 29, 50):
        kept = hardest(similarity, negative, k)
        for row, allowed, found in zip(similarity.tolist(), negative.tolist(), kept.tolist(), strict=True):
            order = sorted((j for j in range(30) if allowed[j]), key=lambda j, row=row: (-row[j], j))
            assert [j for j in range(30) if found[j]] == sorted(order[:k])


def test_random_keeps_so_many_and_each_as_often():
    sampler, similarity, positive = Random(count=3, seed=1), torch.zeros(4, 9), torch.arange(4)
    total = torch.zeros(4, 9)
    for _ in range(2000):
        kept = sampler(similarity, positive, None, {}).weights
        assert (kept.sum(1) == 3).all() and kept.unique().tolist() == [0, 1]
        total += kept
    others = total[torch.nn.functional.one_hot(positive, 9) == 0] / 2000
    assert others.numel() == 32 and (others - 3 / 8).abs().max() < 5 * math.sqrt(3 / 8 * 5 / 8 / 2000)
    few = torch.ones(4, 9, dtype=torch.bool)
    few[:, 7:] = False
    assert (sampler(similarity, positive, few, {}).weights.sum(1) == 2).all()


def test_random_share_is_the_share_of_each():
    kept = Random(share=0.3, seed=2)(torch.zeros(300, 301), torch.arange(300), None, {}).weights
    assert abs(kept.sum() / 300 / 300 - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 90_000)
    assert weights(Random(share=1.0), [[0.0, 0.0]], [0]) == [[0, 1]]


def test_random_draws_by_seed_and_call_and_evaluation_changes_nothing():
    similarity, positive = torch.zeros(5, 20), torch.arange(5)
    draw = lambda sampler: sampler(similarity, positive, None, {}).weights  # noqa: E731
    one, other, third = Random(4, seed=1), Random(4, seed=1), Random(4, seed=2)
    first = draw(one)
    assert torch.equal(first, draw(other)) and not torch.equal(first, draw(third))
    other.eval()
    assert torch.equal(draw(other), draw(other))
    other.train()
    second = draw(one)
    assert torch.equal(second, draw(other)) and not torch.equal(first, second)
    assert len({mix(seed, call) for seed in range(30) for call in range(30)}) == 900
    assert all(0 <= mix(seed, 3) < 2**63 for seed in (0, 2**40, 2**70))


def test_margin_semi_hard_and_threshold():
    similarity = [[0.5, 0.3, 0.45, 0.5, 0.6], [0.5, 0.1, 0.2, 0.3, 0.35]]
    assert weights(Margin(0.125), similarity, [0, 0]) == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert weights(SemiHard(0.125), similarity, [0, 0]) == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert weights(Threshold(0.3125), similarity, [0, 0]) == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]
    # by the least similar of two positives, 0.3, not by 0.5
    two = [[True, True, False, False, False], [False] * 5]
    assert weights(Margin(0.125), [[0.5, 0.3, 0.2, 0.35, 0.1]] * 2, two) == [[0, 0, 1, 1, 0], [0] * 5]
    assert weights(SemiHard(0.125), [[0.5, 0.3, 0.2, 0.35, 0.1]] * 2, two) == [[0, 0, 1, 0, 0], [0] * 5]


def test_margin_keeps_what_a_triplet_loss_learns_from():
    similarity = torch.randn(6, 8, requires_grad=True)
    positive = torch.arange(6)
    triplets = (similarity - similarity.gather(1, positive[:, None]) + 0.4).clamp(min=0)
    triplets.scatter(1, positive[:, None], 0.0).sum().backward()
    kept = Margin(0.4)(similarity, positive, None, {}).weights > 0
    assert torch.equal(kept, (similarity.grad != 0).scatter(1, positive[:, None], False))


def test_a_row_without_negatives_has_no_loss():
    similarity = torch.tensor([[0.9, 0.1], [0.1, 0.2]], requires_grad=True)
    loss = info_nce(similarity, torch.arange(2), Margin(0.2)(similarity, torch.arange(2), None, {}).weights)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * math.log(1 + math.exp(-1)))
    assert similarity.grad[0].tolist() == [0, 0] and similarity.grad[1].abs().min() > 0


def test_hardness_by_hand():
    # e^{beta s / t} = e^{2 s / 0.5}: 1 for s = 0 and 3 for s = ln 3 / 4
    found = weights(Hardness(2.0, 0.5), [[5.0, 0.0, math.log(3) / 4]], [0])
    assert found[0] == pytest.approx([0, 0.5, 1.5])
    assert weights(Hardness(0.0), [[0.5, 0.1, 0.9]], [0]) == [[0, 1, 1]]


def test_hardness_is_the_loss_hard_negative_without_the_gradient_of_the_weights():
    similarity = torch.rand(6, 7, dtype=torch.float64, requires_grad=True)
    sampler = Hardness(1.25, 0.2)
    found = sampler(similarity, torch.arange(6), None, {})
    torch.testing.assert_close(
        info_nce(similarity, *found, 0.2),
        hard_negative(similarity, torch.arange(6), None, 0.2, beta=1.25, tau_plus=0.0),
    )
    assert not found.weights.requires_grad
    torch.testing.assert_close(found.weights.sum(1), torch.full((6,), 6.0, dtype=torch.float64))


def test_beta_moves_in_a_straight_line_while_training():
    sampler = Hardness(2.0, final=1.0, steps=4)
    seen = []
    for _ in range(7):
        sampler(torch.rand(2, 2), torch.arange(2), None, {})
        seen.append(sampler.metrics()["sampler/hardness"].item())
        sampler.remember(torch.rand(2, 2), {})
        sampler.eval().remember(torch.rand(2, 2), {})
        sampler.train()
    assert seen == [2.0, 1.75, 1.5, 1.25, 1.0, 1.0, 1.0]


def test_debiased_by_hand():
    # t = 1, mean_n = (2 + 4) / 2 = 3, mean_p = 2: g = (3 - 0.5 x 2) / 0.5 = 4, of 2 negatives 8 in place of 6
    logs = [[math.log(2), math.log(2), math.log(4)]]
    assert weights(Debiased(0.5, 1.0), logs, [0])[0] == pytest.approx([0, 4 / 3, 4 / 3])
    # with mean_p = 8 the estimate (3 - 0.5 x 8) / 0.5 is negative: the floor e^-1 in place of the mean 3
    logs[0][0] = math.log(8)
    assert weights(Debiased(0.5, 1.0), logs, [0])[0] == pytest.approx([0, math.exp(-1) / 3, math.exp(-1) / 3])


@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("tau_plus", [0.0, 0.1, 0.6])
def test_debiased_is_the_loss_of_that_name_with_its_gradient(temperature, tau_plus):
    generator = torch.Generator().manual_seed(3)
    similarity = torch.rand(8, 12, dtype=torch.float64, generator=generator) * 2 - 1
    similarity[0, 0], similarity[1, 1] = 1.0, -1.0  # below and above the floor
    positive = torch.rand(8, 12, generator=generator) < 0.2
    positive[0], positive[1], positive[7] = torch.arange(12) == 0, torch.arange(12) == 1, True
    similarity.requires_grad_()
    found = Debiased(tau_plus, temperature)(similarity, positive, None, {})
    loss = info_nce(similarity, *found, temperature, reduction="none")
    expected = debiased(similarity, positive, None, temperature, tau_plus, reduction="none")
    for row in range(7):
        if positive[row].sum() != 1:  # of several positives `debiased` leaves the others out of the denominator
            continue
        torch.testing.assert_close(loss[row], expected[row])
        gradients = [torch.autograd.grad(each[row], similarity, retain_graph=True)[0] for each in (loss, expected)]
        torch.testing.assert_close(*gradients)


def test_cancel_by_label():
    known = {"label": tensor([3, -1, 4]), "key_label": tensor([3, -1, 3, 4, -1])}
    found = weights(CancelByLabel(), [[0.0] * 5] * 3, [0, 1, 3], None, known)
    assert found == [[0, 1, 0, 1, 1], [1, 0, 1, 1, 1], [1, 1, 1, 0, 1]]


def test_cancel_by_guide():
    angles = tensor([0.0, 20.0, 30.0, 60.0, 90.0]).deg2rad()
    key_guide = torch.stack((angles.cos(), angles.sin()), 1)  # cosines 1, 0.94, 0.87, 0.5, 0 with the query
    key_guide[4] = 0.0
    known = {"guide": tensor([[2.0, 0.0]]), "key_guide": key_guide * 3}
    keep = lambda sampler, positive=2: weights(sampler, [[0.0] * 5], [positive], None, known)[0]  # noqa: E731
    assert keep(CancelByGuide()) == [0, 0, 0, 1, 1]
    assert keep(CancelByGuide(0.4)) == [0, 0, 0, 0, 1]
    assert keep(CancelByGuide(-0.1)) == [0, 1, 0, 1, 1]  # 0.966 is the edge
    assert keep(CancelByGuide(None, relative=0.4), 1) == [0, 0, 0, 1, 1]  # 0.56 is the edge
    assert keep(CancelByGuide(None, relative=0.5), 1) == [0, 0, 0, 0, 1]  # 0.47
    assert keep(CancelByGuide(None, threshold=0.9), 3) == [0, 0, 1, 0, 1]
    assert keep(CancelByGuide(None, threshold=-1.0), 3) == [0, 0, 0, 0, 1]  # an unknown guide stays
    assert keep(CancelByGuide(0.0, threshold=0.9), 3) == [0, 0, 0, 0, 1]  # either rule
    two = [[False, True, True, False, False]]
    assert weights(CancelByGuide(0.0), [[0.0] * 5], two, None, known) == [[0, 0, 0, 1, 1]]
    none = [[False] * 5]
    assert weights(CancelByGuide(0.0, 0.0), [[0.0] * 5], none, None, known) == [[1] * 5]


def test_cancel_top_k_eliminates_or_attracts():
    similarity = tensor([[0.9, 0.5, 0.7, 0.1]])
    found = CancelTopK(1)(similarity, tensor([0]), None, {})
    assert found.positive.tolist() == [0] and found.weights.tolist() == [[0, 1, 0, 1]]
    attract = CancelTopK(1, attract=True)
    assert attract(similarity, tensor([0]), None, {}).positive.tolist() == [[True, False, True, False]]
    excluded = tensor([[False, False, True, False]])
    found = attract(similarity, tensor([[0.5, 0.0, 0.0, 0.0]]), excluded, {})
    assert found.positive.tolist() == [[0.5, 1.0, 0.0, 0.0]] and found.weights.tolist() == [[0, 0, 0, 1]]
    mask = tensor([[True, False, False, False]])
    assert attract(similarity, mask, excluded, {}).positive.tolist() == [[True, True, False, False]]
    assert mask.tolist() == [[True, False, False, False]]  # what was given is left as it was


def test_attraction_is_the_papers_loss():
    s = tensor([[0.9, 0.5, 0.7, 0.1]], dtype=torch.float64)
    loss = info_nce(s, *CancelTopK(1, attract=True)(s, tensor([0]), None, {}), temperature=0.5)
    e = [math.exp(x / 0.5) for x in (0.9, 0.5, 0.7, 0.1)]
    # each of the two positives against all candidates, and their mean
    assert loss.item() == pytest.approx(-(math.log(e[0] / sum(e)) + math.log(e[2] / sum(e))) / 2)


def test_a_chain_cancels_first_and_mines_what_is_left():
    known = {"label": tensor([1]), "key_label": tensor([1, 1, 2, 2, 3])}
    similarity = [[0.1, 0.9, 0.5, 0.7, 0.3]]
    assert weights(Chain([CancelByLabel(), Hardest(1)]), similarity, [0], None, known) == [[0, 0, 0, 1, 0]]
    assert weights(Chain([Hardest(1), CancelByLabel()]), similarity, [0], None, known) == [[0, 0, 0, 0, 0]]
    # weights multiply: hardness over the two that are left, e^{beta s / t} = 1 and 3
    hard = Chain([Hardest(2), InBatch(), Hardness(1.0, 1.0)])
    assert weights(hard, [[9.0, 0.0, math.log(3), -5.0]], [0])[0] == pytest.approx([0, 0.5, 1.5, 0])
    # what was attracted is a positive for those that follow, and no negative
    found = Chain([CancelTopK(1, attract=True), Hardest(1)])(tensor(similarity), tensor([0]), None, {})
    assert found.positive.tolist() == [[True, True, False, False, False]]
    assert found.weights[0, 2:].tolist() == [0, 1, 0]


def test_no_positive_is_excluded_for_a_later_member():
    seen = []

    class Probe(InBatch):
        def forward(self, similarity, positive, exclude, context):
            seen.append(exclude.tolist())
            return super().forward(similarity, positive, exclude, context)

    Chain([Hardest(1), Probe()])(tensor([[0.9, 0.5, 0.3]]), tensor([0]), None, {})
    Chain([CancelTopK(1, attract=True), Probe()])(tensor([[0.9, 0.5, 0.3]]), tensor([0]), None, {})
    assert seen == [[[False, False, True]], [[False, False, False]]]


def test_a_chain_has_one_memory_and_is_uniform_if_all_are():
    chain = Chain([Queue(2, 4), CancelByLabel()])
    assert chain.memory() is None and not chain.uniform and Chain([Queue(2, 4), InBatch()]).uniform
    key = torch.randn(3, 2)
    chain.remember(key, {"key_label": tensor([5, 6, 7])})
    assert torch.equal(chain.memory().key, key)
    objective = Contrastive(2, sampler=Chain([Queue(2, 8), CancelByLabel()]), temperature=1.0)
    first, second = torch.randn(2, 3, 2)
    labels = {"label": tensor([0, 1, 2]), "key_label": tensor([0, 1, 2])}
    objective(Pairs(first, first, torch.arange(3), None, labels))
    loss = objective(Pairs(second, second, torch.arange(3), None, labels)).loss
    similarity = torch.nn.functional.cosine_similarity(second[:, None], torch.cat((second, first))[None], dim=2)
    similarity[:, 3:][torch.eye(3).bool()] = -torch.inf  # the remembered key of the same label
    torch.testing.assert_close(loss, info_nce(similarity, torch.arange(3), None, 1.0))
    with pytest.raises(ValueError, match="at most one sampler of a Chain may remember keys, got 2"):
        Chain([Queue(2, 4), Chain([Queue(2, 4)])])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Hardest(0), "k of Hardest must be a whole number >= 1, got 0"),
        (lambda: Random(), "Random needs either count or share, got count=None and share=None"),
        (lambda: Random(1, 0.5), "Random needs either count or share, got count=1 and share=0.5"),
        (lambda: Random(share=0.0), r"share of Random must be a number in \(0, 1\], got 0.0"),
        (lambda: Margin(-0.1), "margin of Margin must be a number >= 0, got -0.1"),
        (lambda: SemiHard(0.0), "margin of SemiHard must be a number > 0, got 0.0"),
        (lambda: Threshold(math.nan), "low of Threshold must be a finite number, got nan"),
        (lambda: Hardness(-1.0), "beta of Hardness must be a number >= 0, got -1.0"),
        (lambda: Hardness(temperature=0), "temperature of Hardness must be a number > 0, got 0"),
        (lambda: Debiased(1.0), r"tau_plus of Debiased must be a number in \[0, 1\), got 1.0"),
        (lambda: CancelByGuide(None), "CancelByGuide needs absolute, relative or threshold, got none of them"),
        (lambda: CancelByGuide(relative=1.5), r"relative of CancelByGuide must be a number in \[0, 1\], got 1.5"),
        (lambda: CancelTopK(0), "k of CancelTopK must be a whole number >= 1, got 0"),
        (lambda: Chain([]), "Chain needs at least one sampler, got none"),
    ],
)
def test_wrong_construction(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("sampler", "context", "sentence"),
    [
        (CancelByLabel(), {}, "CancelByLabel needs 'label' in the context of the pairs, which holds nothing"),
        (
            CancelByLabel(),
            {"label": torch.zeros(2)},
            "needs 'key_label' in the context of the pairs, which holds 'label'",
        ),
        (
            CancelByLabel(),
            {"label": torch.zeros(2), "key_label": torch.zeros(2)},
            r"'key_label' in the context for CancelByLabel must be \(3,\), got \(2,\)",
        ),
        (CancelByGuide(), {"guide": torch.zeros(2)}, r"'guide' in the context for CancelByGuide must be \(2, G\), got"),
        (CancelByGuide(), {"guide": torch.zeros(2, 4)}, "CancelByGuide needs 'key_guide' in the context of the pairs"),
    ],
)
def test_wrong_context(sampler, context, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampler(torch.zeros(2, 3), torch.arange(2), None, context)
