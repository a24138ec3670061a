"""Numbers worked by hand, and every formula term by term in Python floats."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core import two_view_pairs
from contraux.core.losses import (
    HardNegative,
    SigLIP,
    clip,
    d2d_ce,
    dclw,
    debiased,
    decoupled,
    hard_negative,
    info_nce,
    mil_nce,
    nt_xent,
    pairwise_info_nce,
    sig_lip,
    sup_con,
    triplet,
)
from contraux.core.similarity import cosine, negative_euclidean

LOG2, LOG3 = math.log(2), math.log(3)
# Temperature 1/2 makes these exponentials: row 0 has 2, 1, 1 and row 1 has 1, 1, 3.
SIMILARITY = torch.tensor([[LOG2 / 2, 0.0, 0.0], [0.0, 0.0, LOG3 / 2]], dtype=torch.float64)
POSITIVE = torch.tensor([0, 1])
SEVERAL = torch.tensor([[True, True, False], [False, True, False]])
WEIGHTS = torch.tensor([[9.0, 0.0, 3.0], [0.5, 7.0, 0.0]], dtype=torch.float64)  # 9 and 7 stand at positives


def close(found: torch.Tensor, *rows: float) -> None:
    assert found.item() == pytest.approx(sum(rows) / len(rows), rel=1e-12)


def test_info_nce():
    close(info_nce(SIMILARITY, POSITIVE, temperature=0.5), math.log(4 / 2), math.log(5 / 1))
    close(info_nce(SIMILARITY, POSITIVE, WEIGHTS, 0.5), math.log((2 + 3) / 2), math.log(1 + 0.5))
    close(info_nce(SIMILARITY, SEVERAL, temperature=0.5), (math.log(4 / 2) + math.log(4 / 1)) / 2, math.log(5))
    soft = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.5, 0.0]])  # a quarter and three quarters
    close(info_nce(SIMILARITY, soft, temperature=0.5), 0.25 * math.log(2) + 0.75 * math.log(4), math.log(5))


def test_nt_xent():
    # exponentials are 1, but 3 between 0 and 1; 0 and 1 are partners, so are 2 and 3; the diagonal never counts
    similarity = torch.zeros(4, 4, dtype=torch.float64)
    similarity[0, 1] = similarity[1, 0] = LOG3
    similarity.fill_diagonal_(50.0)
    partner = torch.tensor([1, 0, 3, 2])
    close(nt_xent(similarity, partner, temperature=1.0), math.log(5 / 3), LOG3)
    mask = torch.nn.functional.one_hot(partner, 4).bool() | torch.eye(4, dtype=torch.bool)
    close(nt_xent(similarity, mask, temperature=1.0), math.log(5 / 3), LOG3)


@pytest.mark.parametrize("n", [2, 5])
def test_equal_similarities_leave_the_logarithm_of_the_candidates(n):
    similarity = torch.zeros(n, n, dtype=torch.float64)
    positive = (torch.arange(n) + 1) % n
    close(info_nce(similarity, positive), math.log(n))
    close(sup_con(similarity, positive, form="in"), math.log(n))
    close(clip(similarity, positive), math.log(n))
    close(nt_xent(similarity, positive), math.log(n - 1))
    close(decoupled(similarity, positive), math.log(n - 1))
    close(dclw(similarity, positive), math.log(n - 1))
    close(debiased(similarity, positive), math.log(n))
    close(hard_negative(similarity, positive), math.log(n))


def test_sup_con():
    # row 0: the mean of e^s over positives is 1.5, of 4 in all
    close(sup_con(SIMILARITY, SEVERAL, None, 0.5, "in"), math.log(4 / 1.5), math.log(5))
    close(sup_con(SIMILARITY, SEVERAL, WEIGHTS, 0.5, "in"), math.log(6 / 1.5), math.log(1.5))
    close(sup_con(SIMILARITY, SEVERAL, None, 0.5, "out"), (math.log(2) + math.log(4)) / 2, math.log(5))
    with pytest.raises(ValueError, match="unknown form 'inside'"):
        sup_con(SIMILARITY, SEVERAL, form="inside")


def test_triplet():
    similarity = torch.tensor([[0.9, 0.8, 0.1], [0.5, 0.2, 0.3]], dtype=torch.float64)
    # margin 0.2: row 0 leads by 0.1 and 0.8; row 1 trails by 0.3 and 0.1
    close(triplet(similarity, POSITIVE), 0.1 / 2, (0.5 + 0.3) / 2)
    close(triplet(similarity, POSITIVE, WEIGHTS), 0.0, 0.5)
    # positives 0.9 and 0.8 lead 0.1 by enough; with margin 0.75 the second lacks 0.05
    close(triplet(similarity, SEVERAL), 0.0, 0.4)
    close(triplet(similarity, SEVERAL, margin=0.75), 0.05 / 2, (1.05 + 0.85) / 2)
    with pytest.raises(ValueError, match=r"margin must be a number >= 0, got -0\.1"):
        triplet(similarity, POSITIVE, margin=-0.1)


@pytest.mark.parametrize("squared", [False, True])
def test_triplet_of_distances_is_torchs(squared):
    anchor, positive, negative = torch.randn(3, 7, 4, dtype=torch.float64)
    similarity = negative_euclidean(anchor, torch.cat((positive, negative)), squared)
    index = torch.arange(7)
    only_own = torch.zeros(7, 14, dtype=torch.float64)
    only_own[index, index + 7] = 1.0

    def distance(a, b):
        return (a - b).norm(dim=1) ** (2 if squared else 1)

    expected = torch.nn.functional.triplet_margin_with_distance_loss(
        anchor, positive, negative, distance_function=distance, margin=1.0
    )
    torch.testing.assert_close(triplet(similarity, index, only_own, 1.0), expected)
    if not squared:
        plain = torch.nn.functional.triplet_margin_loss(anchor, positive, negative, margin=1.0, eps=0.0)
        torch.testing.assert_close(triplet(similarity, index, only_own, 1.0), plain)


def test_decoupled():
    close(decoupled(SIMILARITY, POSITIVE, None, 0.5), math.log(2 / 2), math.log(4 / 1))
    close(decoupled(SIMILARITY, POSITIVE, WEIGHTS, 0.5), math.log(3 / 2), math.log(0.5))
    close(decoupled(SIMILARITY, SEVERAL, None, 0.5), 0.0 - LOG2 / 2, math.log(4))


def test_dclw():
    # sigma 1/2: e^{c/sigma} of the positives is 2 and 1, its mean 1.5, so that v = 2 - 4/3 and 2 - 2/3
    close(dclw(SIMILARITY, POSITIVE, None, 0.5, 0.5), -2 / 3 * LOG2 + LOG2, -4 / 3 * 0 + math.log(4))
    # sigma 1: 2^0.5 and 1
    v = 2 - 2 * 2**0.5 / (2**0.5 + 1)
    close(dclw(SIMILARITY, POSITIVE, None, 0.5, 1.0), -v * LOG2 + LOG2, math.log(4))
    leaf = SIMILARITY.clone().requires_grad_()
    gradient = torch.autograd.grad(dclw(leaf, POSITIVE, None, 0.5, 1.0), leaf)[0]
    assert gradient[0, 0].item() == pytest.approx(-v / 0.5 / 2)  # v is a number to it
    with pytest.raises(ValueError, match="sigma must be a number > 0, got 0"):
        dclw(SIMILARITY, POSITIVE, sigma=0)


def test_debiased():
    # tau 0.2. row 0: mean negative 1, (1 - 0.2 * 2) / 0.8 = 0.75; row 1: mean 2, (2 - 0.2) / 0.8 = 2.25; 2 negatives
    close(debiased(SIMILARITY, POSITIVE, None, 0.5, 0.2), math.log((2 + 1.5) / 2), math.log(1 + 4.5))
    # weights: one negative of weight 3 and value 1, so 3 * 0.75; one of weight 1/2 and value 1, so 1/2 * 1
    close(debiased(SIMILARITY, POSITIVE, WEIGHTS, 0.5, 0.2), math.log((2 + 2.25) / 2), math.log(1.5))
    # two positives: mean 1.5, (1 - 0.3) / 0.8 = 0.875, one negative
    rows = (math.log(2.875 / 2) + math.log(1.875)) / 2, math.log(5.5)
    close(debiased(SIMILARITY, SEVERAL, None, 0.5, 0.2), *rows)
    # tau 0.6: (1 - 1.2) / 0.4 < 0, and the floor e^{-2} takes over; row 1: (2 - 0.6) / 0.4 = 3.5
    floor = 2 * math.exp(-2)
    close(debiased(SIMILARITY, POSITIVE, None, 0.5, 0.6), math.log((2 + floor) / 2), math.log(8))
    close(debiased(SIMILARITY, POSITIVE, WEIGHTS, 0.5, 0.0), *[math.log(2.5), math.log(1.5)])
    with pytest.raises(ValueError, match=r"tau_plus must be a number in \[0, 1\), got 1.0"):
        debiased(SIMILARITY, POSITIVE, tau_plus=1.0)


def test_hard_negative():
    # beta 1, tau 0: row 0 has negatives 1, 1; row 1 has 1, 3 with importances 1/2 and 3/2: 1/2 + 9/2 = 5
    close(hard_negative(SIMILARITY, POSITIVE, None, 0.5, 1.0, 0.0), math.log(4 / 2), math.log(1 + 5))
    # beta 2: importances 2/10 and 18/10
    close(hard_negative(SIMILARITY, POSITIVE, None, 0.5, 2.0, 0.0), LOG2, math.log(1 + 0.2 + 5.4))
    beta = torch.tensor(2.0, dtype=torch.float64)
    close(hard_negative(SIMILARITY, POSITIVE, None, 0.5, beta, 0.0), LOG2, math.log(6.6))
    # tau 0.2: row 0: 2 * (1 - 0.4) / 0.8; row 1: 2 * (2.5 - 0.2) / 0.8
    close(hard_negative(SIMILARITY, POSITIVE, None, 0.5, 1.0, 0.2), math.log(3.5 / 2), math.log(1 + 5.75))
    torch.testing.assert_close(
        hard_negative(SIMILARITY, SEVERAL, WEIGHTS, 0.5, 0.0, 0.3), debiased(SIMILARITY, SEVERAL, WEIGHTS, 0.5, 0.3)
    )
    with pytest.raises(ValueError, match="beta must be a number >= 0, got -1"):
        hard_negative(SIMILARITY, POSITIVE, beta=-1)
    with pytest.raises(ValueError, match=r"beta must be a number or a floating scalar tensor, got .* \(1,\)"):
        hard_negative(SIMILARITY, POSITIVE, beta=torch.ones(1))


def test_mil_nce():
    # row 0: 2 + 1 of 4 are positives; weighted, 1 + 0 of 2 + 1 + 3
    close(mil_nce(SIMILARITY, SEVERAL, None, 0.5), math.log(4 / 3), math.log(5))
    close(mil_nce(SIMILARITY, SEVERAL, WEIGHTS, 0.5), math.log(6 / 3), math.log(1.5))
    close(mil_nce(SIMILARITY, POSITIVE, WEIGHTS, 0.5), math.log((2 + 3) / 2), math.log(1 + 0.5))
    soft = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.5, 0.0]])  # a half of 2 and one and a half of 1
    close(mil_nce(SIMILARITY, soft, None, 0.5), math.log(4 / (0.5 * 2 + 1.5 * 1)), math.log(5))


def test_pairwise_info_nce():
    # row 0: 2 against 1, and 1 against 1; weighted, against 3
    close(pairwise_info_nce(SIMILARITY, SEVERAL, None, 0.5), (math.log(3 / 2) + LOG2) / 2, math.log(5))
    close(pairwise_info_nce(SIMILARITY, SEVERAL, WEIGHTS, 0.5), (math.log(5 / 2) + math.log(4)) / 2, math.log(1.5))
    soft = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.5, 0.0]])
    close(pairwise_info_nce(SIMILARITY, soft, None, 0.5), 0.25 * math.log(3 / 2) + 0.75 * LOG2, math.log(5))


# Cosines to two of another class, to one of the own class (weight 0) and to the proxy; temperature 1/2, margins 0.98
# and 0.02: logits of negatives 2 (0.27 - 0.02) = 0.5 and 0, of the proxy 2 (0.73 - 0.98) = -0.5 and 0 above 0.98.
COSINES = torch.tensor([[0.27, -0.6, 0.52, 0.73], [0.27, -0.6, -0.9, 0.99]], dtype=torch.float64)
OTHER_CLASS = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
PROXY = torch.tensor([3, 3])


def test_d2d_ce():
    e = math.exp
    rows = math.log((e(-0.5) + e(0.5) + 1) / e(-0.5)), math.log(1 + e(0.5) + 1 + 1)
    close(d2d_ce(COSINES, PROXY, OTHER_CLASS, 0.5), *rows)
    # the code takes the row's largest from the negatives: 2 (0.52 - 0.02) = 1, which weighs 0, and 2 (0.27 - 0.02)
    rows = math.log((e(-0.5) + e(0.5 - 1) + e(-1)) / e(-0.5)), math.log(1 + 1 + 2 * e(-0.5))
    close(d2d_ce(COSINES, PROXY, OTHER_CLASS, 0.5, variant="studiogan"), *rows)
    # all below the margin: the largest is 2 (-0.6 - 0.02), and taking it away makes negatives of more than 1
    low = COSINES[1:, 1:]
    found = d2d_ce(low, PROXY[1:] - 1, OTHER_CLASS[1:, 1:], 0.5, variant="studiogan")
    close(found, math.log(1 + 2 * e(1.24)))
    # what is not there has no largest
    absent = COSINES.masked_fill(OTHER_CLASS == 0, -torch.inf)
    absent[:, 3] = COSINES[:, 3]
    rows = math.log((e(-0.5) + 1 + e(-0.5)) / e(-0.5)), math.log(1 + 1 + 2 * e(-0.5))
    close(d2d_ce(absent, PROXY, None, 0.5, variant="studiogan"), *rows)
    nobody = absent.masked_fill(OTHER_CLASS > 0, -torch.inf).requires_grad_()
    value = d2d_ce(nobody, PROXY, None, 0.5, variant="studiogan")
    assert value.item() == 0 and torch.autograd.grad(value, nobody)[0].isfinite().all()
    with pytest.raises(ValueError, match=r"unknown variant 'code': .*There are: paper, studiogan"):
        d2d_ce(COSINES, PROXY, variant="code")
    with pytest.raises(ValueError, match="margin_positive must be a number, got '1'"):
        d2d_ce(COSINES, PROXY, margin_positive="1")


@pytest.mark.parametrize("variant", ["paper", "studiogan"])
def test_d2d_ce_lets_easy_pairs_go(variant):
    cosines = COSINES.clone().requires_grad_()
    gradient = torch.autograd.grad(d2d_ce(cosines, PROXY, OTHER_CLASS, 0.5, variant=variant), cosines)[0]
    assert gradient[0, 0] > 0 and gradient[1, 0] > 0 and gradient[0, 3] < 0
    assert (gradient[:, 1:3] == 0).all() and gradient[1, 3] == 0


def test_annealed_beta():
    loss = HardNegative(2.0, 1.0, steps=2, tau_plus=0.0)
    expected = {beta: hard_negative(SIMILARITY, POSITIVE, None, 0.5, beta, 0.0) for beta in (2.0, 1.5, 1.0)}
    torch.testing.assert_close(loss(SIMILARITY, POSITIVE, None, 0.5), expected[2.0])  # a call is no step
    for beta in (2.0, 1.5, 1.0, 1.0):
        torch.testing.assert_close(loss(SIMILARITY, POSITIVE, None, 0.5), expected[beta])
        loss.update()
    resumed = HardNegative(2.0, 1.0, steps=8, tau_plus=0.0)
    resumed.load_state_dict(loss.state_dict())
    assert resumed.done == 4
    torch.testing.assert_close(resumed(SIMILARITY, POSITIVE, None, 0.5), expected[1.5])
    assert not list(loss.parameters())
    for wrong in ({"beta": -1.0}, {"final": math.inf}, {"steps": 0}, {"tau_plus": 1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            HardNegative(**wrong)


def test_clip():
    # exponentials [[2, 1, 1], [1, 1, 3]]; columns 0 and 1 are somebody's positive: 2 of 3 and 1 of 2
    rows, columns = [LOG2, math.log(5)], [math.log(3 / 2), LOG2]
    close(clip(SIMILARITY, POSITIVE, None, 0.5), *rows, *columns)
    # weights: column 0 counts row 1 half, column 1 counts row 0 not at all
    rows, columns = [math.log(2.5), math.log(1.5)], [math.log(2.5 / 2), 0.0]
    close(clip(SIMILARITY, POSITIVE, WEIGHTS, 0.5), *rows, *columns)
    # both rows want column 2: it has two positives, 1 and 3 of 4
    shared = torch.tensor([2, 2])
    found = clip(SIMILARITY, shared, None, 0.5).item()
    rows = (math.log(4) + math.log(5 / 3)) / 2
    assert found == pytest.approx((rows + (math.log(4) + math.log(4 / 3)) / 2) / 2, rel=1e-12)


def test_sig_lip():
    def no(x):
        return math.log1p(math.exp(x))

    # bias 1, temperature 1/2: x = 2 s + 1
    a, b = LOG2 + 1, LOG3 + 1
    close(sig_lip(SIMILARITY, POSITIVE, None, 0.5, 1.0), no(-a) + 2 * no(1), no(-1) + no(1) + no(b))
    close(sig_lip(SIMILARITY, POSITIVE, WEIGHTS, 0.5, 1.0), no(-a) + 3 * no(1), no(-1) + 0.5 * no(1))
    close(sig_lip(SIMILARITY, SEVERAL, WEIGHTS, 0.5, 1.0), no(-a) + no(-1) + 3 * no(1), no(-1) + 0.5 * no(1))
    soft = torch.tensor([[0.25, 0.0, 0.0], [0.0, 1.0, 0.0]])
    close(
        sig_lip(SIMILARITY, soft, WEIGHTS * 0, 0.5, 1.0), 0.25 * no(-a) + 0.75 * no(a), no(-1)
    )  # a soft positive is a question whatever its weight
    for wrong in (math.inf, "0", torch.zeros(1)):
        with pytest.raises(ValueError, match="bias must be a"):
            sig_lip(SIMILARITY, POSITIVE, bias=wrong)


def test_the_bias_of_sig_lip_is_learned():
    loss = SigLIP(bias=1.0)
    value = loss(SIMILARITY, POSITIVE, WEIGHTS, 0.5)
    torch.testing.assert_close(value, sig_lip(SIMILARITY, POSITIVE, WEIGHTS, 0.5, 1.0))
    value.backward()

    def yes(x):
        return 1 / (1 + math.exp(-x))

    by_bias = [-yes(-LOG2 - 1) + 3 * yes(1), -yes(-1) + 0.5 * yes(1)]
    assert loss.bias.grad.item() == pytest.approx(sum(by_bias) / 2, rel=1e-6)
    assert SigLIP().bias.item() == -10
    with pytest.raises(ValueError, match="bias must be a finite number, got nan"):
        SigLIP(math.nan)


# The formulas, term by term. A row is its similarities over the temperature s, positives as {column: share}, negatives
# as {column: weight}.


def by_info_nce(s, p, n):
    z = sum(math.exp(s[j]) for j in p) + sum(w * math.exp(s[j]) for j, w in n.items())
    return sum(y * -math.log(math.exp(s[j]) / z) for j, y in p.items()) / sum(p.values())


def by_sup_con_in(s, p, n):
    z = sum(math.exp(s[j]) for j in p) + sum(w * math.exp(s[j]) for j, w in n.items())
    return -math.log(sum(y * math.exp(s[j]) for j, y in p.items()) / sum(p.values()) / z)


def by_decoupled(s, p, n):
    pull = sum(y * s[j] for j, y in p.items()) / sum(p.values())
    return math.log(sum(w * math.exp(s[j]) for j, w in n.items())) - pull if n else 0.0


def by_triplet(s, p, n, margin=0.7):
    terms = [y * w * max(0.0, s[k] - s[j] + margin) for j, y in p.items() for k, w in n.items()]
    return sum(terms) / sum(p.values()) / sum(n.values()) if n else 0.0


def by_mil_nce(s, p, n):
    z = sum(math.exp(s[j]) for j in p) + sum(w * math.exp(s[j]) for j, w in n.items())
    return -math.log(sum(len(p) * y / sum(p.values()) * math.exp(s[j]) for j, y in p.items()) / z)


def by_pairwise_info_nce(s, p, n):
    against = sum(w * math.exp(s[j]) for j, w in n.items())
    return sum(y * -math.log(math.exp(s[j]) / (math.exp(s[j]) + against)) for j, y in p.items()) / sum(p.values())


def by_d2d_ce(s, p, n, temperature, variant):
    at = {j: min(0.0, s[j] - 0.9 / temperature) for j in p}
    far = {j: s[j] - 0.1 / temperature for j in range(len(s)) if j not in p}
    top = max(far.values(), default=0.0) if variant == "studiogan" else 0.0
    z = sum(math.exp(x) for x in at.values()) + sum(w * math.exp(max(0.0, far[j]) - top) for j, w in n.items())
    return sum(y * -math.log(math.exp(at[j]) / z) for j, y in p.items()) / sum(p.values())


def by_sig_lip(s, p, n, bias=-2.0):
    def log_sigmoid(x):
        return -math.log(1 + math.exp(-x))

    wanted = sum(y * log_sigmoid(s[j] + bias) + (1 - y) * log_sigmoid(-s[j] - bias) for j, y in p.items())
    return -wanted - sum(w * log_sigmoid(-s[j] - bias) for j, w in n.items())


def by_hard_negative(s, p, n, beta=1.5, tau=0.2, temperature=1.0):
    if not n:
        return 0.0
    total = sum(n.values())
    importance = {j: w * math.exp(beta * s[j]) for j, w in n.items()}
    mean_negative = sum(i * math.exp(s[j]) for j, i in importance.items()) / sum(importance.values())
    mean_positive = sum(y * math.exp(s[j]) for j, y in p.items()) / sum(p.values())
    g = max((mean_negative - tau * mean_positive) / (1 - tau), math.exp(-1 / temperature))
    picked = [y * math.log(math.exp(s[j]) / (math.exp(s[j]) + total * g)) for j, y in p.items()]
    return -sum(picked) / sum(p.values())


FORMULAS = {
    "info_nce": (by_info_nce, lambda s, p, w, t: info_nce(s, p, w, t)),
    "sup_con in": (by_sup_con_in, lambda s, p, w, t: sup_con(s, p, w, t, "in")),
    "decoupled": (by_decoupled, lambda s, p, w, t: decoupled(s, p, w, t)),
    "triplet": (by_triplet, lambda s, p, w, t: triplet(s / t, p, w, 0.7)),
    "mil_nce": (by_mil_nce, lambda s, p, w, t: mil_nce(s, p, w, t)),
    "pairwise_info_nce": (by_pairwise_info_nce, lambda s, p, w, t: pairwise_info_nce(s, p, w, t)),
    "d2d_ce": (
        lambda s, p, n, temperature: by_d2d_ce(s, p, n, temperature, "paper"),
        lambda s, p, w, t: d2d_ce(s, p, w, t, 0.9, 0.1),
    ),
    "d2d_ce studiogan": (
        lambda s, p, n, temperature: by_d2d_ce(s, p, n, temperature, "studiogan"),
        lambda s, p, w, t: d2d_ce(s, p, w, t, 0.9, 0.1, "studiogan"),
    ),
    "sig_lip": (by_sig_lip, lambda s, p, w, t: sig_lip(s, p, w, t, -2.0)),
    "debiased": (
        lambda s, p, n, temperature: by_hard_negative(s, p, n, 0.0, 0.1, temperature),
        lambda s, p, w, t: debiased(s, p, w, t),
    ),
    "hard_negative": (
        lambda s, p, n, temperature: by_hard_negative(s, p, n, temperature=temperature),
        lambda s, p, w, t: hard_negative(s, p, w, t, 1.5, 0.2),
    ),
}

NEED_TEMPERATURE = {"debiased", "hard_negative", "d2d_ce", "d2d_ce studiogan"}


@pytest.mark.parametrize("name", FORMULAS)
@given(
    n=st.integers(1, 5),
    m=st.integers(1, 6),
    seed=st.integers(0, 2**31 - 1),
    temperature=st.sampled_from([0.07, 0.5, 1]),
)
@settings(max_examples=40, deadline=None)
def test_losses_equal_their_formulas(name, n, m, seed, temperature):
    formula, loss = FORMULAS[name]
    extra = {"temperature": temperature} if name in NEED_TEMPERATURE else {}
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(n, m, generator=generator, dtype=torch.float64) * 2 - 1
    weights = torch.rand(n, m, generator=generator, dtype=torch.float64) * 3
    weights[torch.rand(n, m, generator=generator) < 0.3] = 0.0
    index = torch.randint(m, (n,), generator=generator)
    several = torch.rand(n, m, generator=generator) < 0.4
    several[0, index[0]] = True
    soft = several * torch.rand(n, m, generator=generator).double().clamp(min=0.01)
    table = torch.nn.functional.one_hot(index, m)
    for w in (None, weights):
        for positive, share in ((index, table), (several, several), (soft, soft)):
            rows = []
            for i in range(n):
                wanted = {j: y for j, y in enumerate(share[i].tolist()) if y > 0}
                rivals = {j: 1.0 if w is None else w[i, j].item() for j in range(m) if j not in wanted}
                rivals = {j: weight for j, weight in rivals.items() if weight > 0}
                if wanted:
                    rows.append(formula((similarity[i] / temperature).tolist(), wanted, rivals, **extra))
            found = loss(similarity, positive, w, temperature).item()
            assert found == pytest.approx(sum(rows) / len(rows), rel=1e-9, abs=1e-10)


@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_nt_xent_is_info_nce_without_the_diagonal(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))
    pairs = two_view_pairs(a, b)
    similarity = cosine(pairs.query, pairs.key)
    rows = []
    for i, row in enumerate((similarity / 0.5).tolist()):
        partner = (i + n) % (2 * n)
        rows.append(by_info_nce(row, {partner: 1.0}, {j: 1.0 for j in range(2 * n) if j not in (i, partner)}))
    close(nt_xent(similarity, pairs.positive, temperature=0.5), *rows)
    table = torch.nn.functional.one_hot(pairs.positive, 2 * n).double()
    close(nt_xent(similarity, table + torch.eye(2 * n), temperature=0.5), *rows)
    close(info_nce(similarity, pairs.positive, 1 - torch.eye(2 * n, dtype=torch.float64), 0.5), *rows)


def test_two_view_layout():
    a, b = torch.randn(3, 2), torch.randn(3, 2)
    pairs = two_view_pairs(a, b)
    assert pairs.query is pairs.key
    assert torch.equal(pairs.query, torch.cat((a, b)))
    assert pairs.positive.tolist() == [3, 4, 5, 0, 1, 2]
    assert torch.equal(pairs.exclude, torch.arange(6))
    with pytest.raises(ValueError, match=r"one shape \(N, D\), got \(3, 2\) and \(4, 2\)"):
        two_view_pairs(a, torch.randn(4, 2))


def test_queue_columns_are_negatives_of_queries_only():
    """Columns behind the batch's own change nothing in the direction from keys to queries."""
    queries, keys, queue = torch.randn(3, 5, 4, dtype=torch.float64)
    own, with_queue = cosine(queries, keys), cosine(queries, torch.cat((keys, queue)))
    index = torch.randperm(5)
    back = info_nce(own.T, index.argsort(), temperature=0.2)
    torch.testing.assert_close(clip(with_queue, index, None, 0.2), (info_nce(with_queue, index, None, 0.2) + back) / 2)


def test_many_positives_need_no_cube_of_memory():
    """1000 x 1000 with half of the columns positive would be 4 GB as triplets."""
    similarity = torch.rand(1000, 1000)
    mask = torch.rand(1000, 1000) < 0.5
    row = [s - p + 0.2 for p in similarity[0][mask[0]].tolist() for s in similarity[0][~mask[0]].tolist()]
    found = triplet(similarity, mask, reduction="none")[0].item()
    assert found == pytest.approx(sum(max(0.0, x) for x in row) / len(row), rel=1e-5)
