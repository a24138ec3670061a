"""Every loss with every sampler and similarity: a number and a gradient, or one sentence that says why not."""

import itertools
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from preset_kinds import CONTRASTIVE

import contraux
from contraux.core import Contrastive, Pairs, SameLabel, two_view_pairs
from contraux.core.kernels import entry
from contraux.core.losses import (
    HardNegative,
    SigLIP,
    clip,
    dclw,
    debiased,
    decoupled,
    hard_negative,
    info_nce,
    max_margin,
    nt_xent,
    sig_lip,
    sup_con,
    triplet,
)
from contraux.core.preset import build, preset
from contraux.core.samplers import (
    Bandit,
    Bayesian,
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
from contraux.core.similarity import Bilinear, cosine, dot, negative_euclidean

LOSSES = [
    info_nce,
    nt_xent,
    sup_con,
    triplet,
    decoupled,
    dclw,
    debiased,
    hard_negative,
    HardNegative(),
    clip,
    sig_lip,
    SigLIP(),
    max_margin,
]
SAMPLERS = [
    InBatch(),
    Queue(4, 5),
    Random(share=0.5),
    Hardest(2),
    Margin(),
    SemiHard(),
    Threshold(),
    Hardness(),
    Debiased(),
    CancelByLabel(),
    CancelByGuide(),
    CancelTopK(1),
    CancelTopK(1, attract=True),
    Bandit(warmup=1, interval=1),
    Bayesian(warmup=1, interval=1),
    Chain([Queue(4, 5), CancelByLabel(), Hardest(2)]),
]
SIMILARITIES = [cosine, dot, negative_euclidean, Bilinear(4)]
SQUARE = (nt_xent, max_margin)


def pairs(draw_mask, n, m, seed, dtype=torch.float32):
    """Queries, keys, some way to say who is positive, perhaps exclusions, and all that any sampler wants to know."""
    torch.manual_seed(seed)
    query, key = torch.randn(n, 4, dtype=dtype).requires_grad_(), torch.randn(m, 4, dtype=dtype).requires_grad_()
    label, key_label = torch.randint(-1, 3, (n,)), torch.randint(-1, 3, (m,))
    context = {"label": label, "key_label": key_label, "guide": torch.randn(n, 3), "key_guide": torch.randn(m, 3)}
    positive = {
        "index": torch.randint(m, (n,)),
        "mask": torch.rand(n, m) < 0.3,
        "soft": torch.rand(n, m) * (torch.rand(n, m) < 0.5),
        "labels": SameLabel(label, key_label),
    }[draw_mask]
    return Pairs(query, key, positive, None, context)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: getattr(loss, "__name__", type(loss).__name__))
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_every_combination_gives_a_number_or_says_why_not(loss, sampler):
    for similarity, kind in itertools.product(SIMILARITIES, ("index", "mask", "labels")):
        objective = Contrastive(4, similarity=similarity, sampler=sampler, loss=loss)
        batch = pairs(kind, 6, 6, 0)
        if loss in SQUARE:
            batch = batch._replace(exclude=torch.arange(6), positive=torch.arange(6).roll(3))
        for step in range(3):  # a queue fills, an adaptive sampler decides
            remembered = objective.sampler.memory() is not None
            if loss in SQUARE and remembered:
                with pytest.raises(ValueError, match="needs a square similarity"):
                    objective(batch)
                break
            outcome = objective(batch)
            assert outcome.loss.isfinite(), (similarity, kind, step)
            gradients = torch.autograd.grad(outcome.loss, (batch.query, batch.key), allow_unused=True)
            assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
            assert all(value.isfinite() for value in outcome.metrics.values())
            objective.update()


@given(
    loss=st.sampled_from([loss for loss in LOSSES if loss not in SQUARE]),
    sampler=st.sampled_from(SAMPLERS),
    similarity=st.sampled_from(SIMILARITIES),
    kind=st.sampled_from(["index", "mask", "soft", "labels"]),
    exclude=st.sampled_from([None, "one", "some", "all"]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    n=st.integers(1, 7),
    m=st.integers(1, 7),
    blocks=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=300, deadline=None)
def test_whatever_the_shapes_dtypes_and_masks(loss, sampler, similarity, kind, exclude, dtype, n, m, blocks, seed):
    batch = pairs(kind, n, m, seed, dtype)
    masks = {
        None: None,
        "one": torch.randint(m, (n,)),
        "some": torch.rand(n, m) < 0.4,
        "all": torch.ones(n, m, dtype=torch.bool),
    }
    batch = batch._replace(exclude=masks[exclude])
    objective = Contrastive(4, similarity=similarity, sampler=sampler, loss=loss)
    with pytest.MonkeyPatch.context() as patch:
        if blocks:
            patch.setattr(entry, "COMPOSED", 0)
            patch.setattr("contraux.core.kernels.composed.CELLS", 6)
            patch.setattr("contraux.core.kernels.cpu.SMALL", 0)
        for _ in range(2):
            outcome = objective(batch)
            gradients = torch.autograd.grad(outcome.loss, (batch.query, batch.key), allow_unused=True)
            objective.update()
    assert outcome.loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert outcome.loss.isfinite()
    for gradient, of in zip(gradients, (batch.query, batch.key), strict=True):
        assert gradient is None or (gradient.dtype == of.dtype and gradient.isfinite().all())


# --- by the names of the command line ---------------------------------------------------------------------------------


def names(group):
    return sorted(path.stem for path in (Path(contraux.__file__).parent / "configs" / group).glob("*.yaml"))


@cache
def part(group, name):
    """The part that a YAML describes; objectives copy what they are given."""
    return build(preset("temporal", f"{group}={name}").module[group])


PAIRED = {"negative_cosine", "vicreg", "barlow_twins", "alignment_uniformity"}
SQUARE_ONLY = {"nt_xent", "max_margin"}
KNOWS = {"cancel_by_label": ("label", "key_label"), "cancel_by_guide": ("guide", "key_guide")}
MAY_KEEP_NONE = {"margin", "semi_hard", "threshold"}  # then there is nothing to learn from


def refused(sentence, call, *arguments, **keywords):
    with pytest.raises(ValueError, match=sentence) as found:
        call(*arguments, **keywords)
    assert "\n" not in str(found.value)


def observations(n=12, m=12):
    """What a reinforcement learner compares: queries and keys, row by row, and all that any sampler wants to know."""
    torch.manual_seed(0)
    known = {"label": torch.randint(3, (n,)), "key_label": torch.randint(3, (m,))}
    known |= {"guide": torch.randn(n, 3), "key_guide": torch.randn(m, 3)}
    return Pairs(torch.randn(n, 128, requires_grad=True), torch.randn(m, 128), torch.arange(n), None, known)


def views():
    """Two views of 6 examples, each compared with all others."""
    query, key, *_, context = observations()
    return two_view_pairs(query[:6], key[:6])._replace(context=context)


@pytest.mark.parametrize("loss", names("loss"))
@pytest.mark.parametrize("objective", CONTRASTIVE)
def test_every_part_by_name_with_every_contrastive_preset(objective, loss):
    factory = build(preset(objective, f"loss={loss}").module)
    for sampler, similarity in itertools.product(names("sampler"), names("similarity")):
        parts = {"sampler": part("sampler", sampler), "similarity": part("similarity", similarity)}
        if loss in PAIRED:
            refused(f"a similarity matrix, got {loss}, which compares rows", factory, 128, **parts)
            continue
        if (sampler, similarity) == ("debiased", "negative_euclidean"):
            continue  # its floor is that of cosines, which Debiased says; at distances of 16 it overflows
        made = factory(128, **parts)
        batch = views() if loss in SQUARE_ONLY else observations()
        if sampler in KNOWS:
            refused(f"needs '{KNOWS[sampler][0]}' in the context", made, batch._replace(context={}))
        outcome = made(batch)
        (gradient,) = torch.autograd.grad(outcome.loss, batch.query)
        assert outcome.loss.isfinite() and gradient.isfinite().all(), (sampler, similarity)
        assert gradient.any() or sampler in MAY_KEEP_NONE, (sampler, similarity)
        if loss in SQUARE_ONLY and sampler == "queue":  # which holds keys by now
            refused("needs a square similarity", made, batch)
        elif loss in SQUARE_ONLY:
            uneven = observations(11, 12)._replace(exclude=torch.arange(11))
            refused("needs a square similarity", made, uneven)


@pytest.mark.parametrize("loss", sorted(SQUARE_ONLY))
def test_losses_among_all_views_refuse_queries_that_are_not_the_keys(loss):
    made = build(preset("temporal", f"loss={loss}").module)(128)
    refused("queries must be the keys, or exclude must name each row itself", made, observations())
