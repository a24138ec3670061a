"""TACO against its three losses written out in loops, and where their gradient goes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core import Pairs
from contraux.core.preset import build, preset
from contraux.core.similarity import cosine
from contraux.core.temporal import TACO


def batch(n=6, k=3, d=7, a=2, dtype=torch.float32):
    torch.manual_seed(0)
    query, key, view = (torch.randn(n, d, dtype=dtype, requires_grad=True) for _ in range(3))
    context = {"action": torch.randn(n, k, a), "reward": torch.randn(n, k), "view": view}
    return Pairs(query, key, torch.arange(n), context=context)


def taco(d=7, a=2, k=3, **settings):
    torch.manual_seed(1)
    return TACO(d, action_dim=a, steps=k, **{"features": 5, "hidden": 16, **settings})


def layer_norm(x):
    return (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)


def linear(layer, x):
    return layer.weight @ x + layer.bias


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_it_is_the_equations_in_loops(n, k, a):
    pairs, objective = batch(n, k, a=a, dtype=torch.float64), taco(a=a, k=k).double()
    with torch.no_grad():
        objective.contrast.similarity.weight.add_(torch.randn(5, 5, dtype=torch.float64) / 4)  # not symmetric
    weight = objective.contrast.similarity.weight

    def state(z):
        return torch.tanh(layer_norm(linear(objective.state[0], z)))

    def two_layers(head, x):
        return linear(head[2], linear(head[0], x).clamp(min=0))

    contrast = curl = reward = 0.0
    keys, views = ([state(row) for row in rows] for rows in (pairs.key, pairs.context["view"]))
    for i in range(n):
        embedded = [
            linear(objective.action[2], torch.tanh(linear(objective.action[0], one.double())))
            for one in pairs.context["action"][i]
        ]
        sequence = torch.tanh(layer_norm(linear(objective.sequence[0], torch.cat(embedded))))
        now = state(pairs.query[i])
        joint = torch.cat((now, sequence))
        predicted = two_layers(objective.prediction, joint)
        logits = [(predicted @ weight @ key).item() for key in keys]
        contrast -= math.log(math.exp(logits[i]) / sum(map(math.exp, logits))) / n
        logits = [(now @ weight @ view).item() for view in views]
        curl -= math.log(math.exp(logits[i]) / sum(map(math.exp, logits))) / n
        earned = sum(float(r) for r in pairs.context["reward"][i])
        reward += (two_layers(objective.reward, joint).item() - earned) ** 2 / n
    outcome = objective(pairs)
    assert outcome.loss.item() == pytest.approx(contrast + curl + reward, rel=1e-6)
    for name, value in (("taco", contrast), ("curl", curl), ("reward", reward)):
        assert outcome.metrics[f"loss_{name}"].item() == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_the_embedded_action_is_as_long_as_in_the_authors_code():
    for size, expected in ((1, 2), (2, 3), (4, 6), (6, 8), (21, 27)):
        assert taco(a=size).action[2].out_features == expected
    assert taco(a=4, latent=9).sequence[0].in_features == 27


@pytest.mark.parametrize(("reward", "curl"), [(True, True), (True, False), (False, True), (False, False)])
def test_terms_can_be_left_out(reward, curl):
    pairs, full, part = batch(), taco(), taco(reward=reward, curl=curl)
    part.load_state_dict({name: value for name, value in full.state_dict().items() if reward or "reward" not in name})
    every, outcome = full(pairs).metrics, part(pairs)
    kept = ["loss_taco", *["loss_reward"] * reward, *["loss_curl"] * curl]
    torch.testing.assert_close(outcome.loss.detach(), sum(every[name] for name in kept))
    assert {name for name in outcome.metrics if name.startswith("loss_")} == set(kept)
    needed = {"action", *["reward"] * reward, *["view"] * curl}
    part(pairs._replace(context={name: pairs.context[name] for name in needed}))


def test_the_gradient_reaches_query_and_heads_but_nothing_that_is_picked_out():
    pairs, objective = batch(), taco()
    query, key, view, *heads = torch.autograd.grad(
        objective(pairs).loss,
        [pairs.query, pairs.key, pairs.context["view"], *objective.parameters()],
        allow_unused=True,
    )
    assert query.abs().max() > 0 and key is None and view is None
    for (name, _), gradient in zip(objective.named_parameters(), heads, strict=True):
        assert gradient.abs().max() > 0, name


def test_actions_tell_apart_what_the_observation_cannot():
    """The next features depend on the actions alone: with them all positives are found, without only by chance."""
    torch.manual_seed(0)
    objective = TACO(8, action_dim=3, steps=2, features=16, hidden=64, curl=False)
    optimizer, mix = torch.optim.Adam(objective.parameters(), 3e-3), torch.randn(6, 8)
    for _ in range(200):
        action = torch.randn(32, 2, 3)
        context = {"action": action, "reward": action[..., 0]}
        pairs = Pairs(torch.randn(32, 8), action.flatten(1) @ mix, torch.arange(32), context=context)
        outcome = objective(pairs)
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
    assert outcome.metrics["accuracy"] > 0.8 and outcome.metrics["loss_reward"] < 0.5  # of a variance of 2
    shuffled = pairs._replace(context={**pairs.context, "action": action.roll(1, dims=0)})
    assert objective(shuffled).metrics["accuracy"] < 0.2


def test_similarity_sampler_and_loss_are_those_of_any_contrastive_objective():
    made = build(preset("taco", "similarity=cosine", "sampler=hardest", "module.temperature=0.1").module)(
        7, action_dim=2, steps=3
    )
    assert made.contrast.similarity.func is cosine and made.contrast.sampler.k == 16
    assert made(batch()).loss.isfinite()


def test_the_presets_settings_agree_with_each_other():
    config = preset("taco", "source.rewards=false", "source.second_view=false")
    made = build(config.module)(7, action_dim=2, steps=5)
    assert made.steps == 5 and made.reward is None and not made.curl


def test_what_does_not_fit_is_refused_in_one_sentence():
    pairs, objective = batch(), taco()
    for name, setting in (("action", "actions"), ("reward", "rewards"), ("view", "second_view")):
        context = {key: value for key, value in pairs.context.items() if key != name}
        with pytest.raises(
            ValueError, match=rf"TACO needs '{name}' in the context \(source.{setting}=true\), got none"
        ):
            objective(pairs._replace(context=context))
    with pytest.raises(ValueError, match=r"TACO of 2 steps needs 'action' as \(6, 2, 2\), got \(6, 3, 2\)"):
        taco(k=2)(pairs)
    with pytest.raises(ValueError, match=r"TACO needs queries and keys \(N, 7\), got \(6, 7\) and \(12, 7\)"):
        objective(pairs._replace(key=torch.zeros(12, 7)))
    with pytest.raises(ValueError, match="steps must be a whole number >= 1, got 0"):
        taco(k=0)
