"""Gate, schedule and the shared pass: where, how much and in whose backward pass the auxiliary's gradient goes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sb3_contrib import TRPO, RecurrentPPO
from sb3_hosts import ENCODER, HOSTS
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from contraux.clrl import ContrastiveAuxiliary, ObservationAugmentation
from contraux.clrl.discovery import find_encoders
from contraux.clrl.gate import gate_factor, gradient_cosine
from contraux.clrl.schedule import SCHEDULES
from contraux.core.preset import preset
from contraux.core.views import RandomShift


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


def conv_ppo(env="contraux-tests/Ball-v0", **settings):
    settings = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "seed": 1, **settings}
    return PPO("CnnPolicy", make_vec_env(env, n_envs=2, seed=3), policy_kwargs={"net_arch": [16]}, **settings)


# --- gate -------------------------------------------------------------------------------------------------------------


def test_cosine_and_factors_by_hand():
    host, own = [torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])], [torch.tensor([[1.0, 2.0]]), torch.tensor([2.0])]
    cosine = gradient_cosine(host, own)
    assert cosine.item() == pytest.approx((3 + 8) / (5 * 3))
    assert gate_factor("sign", cosine) == 1 and gate_factor("cosine", cosine) == cosine
    against = gradient_cosine(host, [-one for one in own])
    assert gate_factor("sign", against) == 0 and gate_factor("cosine", against) == 0
    assert gradient_cosine([torch.zeros(2)], [torch.ones(2)]) == 0  # a host without a gradient: nothing disagrees
    assert gate_factor("sign", torch.tensor(0.0)) == 1


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.floats(1e-12, 1e12), st.integers(0, 100))
def test_the_cosine_knows_no_scale(scale, seed):
    torch.manual_seed(seed)
    host, own = [torch.randn(3), torch.randn(2, 2)], [torch.randn(3), torch.randn(2, 2)]
    scaled = gradient_cosine([scale * one for one in host], own)
    assert scaled.item() == pytest.approx(gradient_cosine(host, own).item(), abs=1e-5)
    assert -1 - 1e-6 <= scaled <= 1 + 1e-6


class Gradients(BaseCallback):
    """Records the encoder's gradient at each step of the host, as the optimizer sees it."""

    def _on_training_start(self):
        self.seen = []
        parameters = list(self.model.policy.features_extractor.parameters())
        self.handle = self.model.policy.optimizer.register_step_post_hook(
            lambda *_: self.seen.append(torch.cat([p.grad.flatten() for p in parameters]).clone())
        )

    def _on_step(self):
        return True

    def _on_training_end(self):
        self.handle.remove()


def first_gradients(**settings):
    """The first gradient that reaches the encoder of one and the same PPO, and the gate's metrics."""
    model, record = HOSTS["PPO"].make(n_epochs=1, batch_size=64), Gradients()
    auxiliary = ContrastiveAuxiliary("temporal", batch_size=16, seed=0, **settings)
    model.learn(64, callback=[auxiliary, record])
    return record.seen[0].double(), model.logger.name_to_value


def test_the_gate_multiplies_what_the_auxiliary_adds():
    host, _ = first_gradients(weight=0)
    added = first_gradients(weight=0.5)[0] - host
    cosine = torch.dot(host, added) / host.norm() / added.norm()
    gated, metrics = first_gradients(weight=0.5, gate="cosine")
    assert metrics["auxiliary/gate/cosine"] == pytest.approx(cosine.item(), rel=1e-3)
    torch.testing.assert_close(gated - host, added * cosine.clamp(min=0), rtol=1e-3, atol=1e-6)
    signed, metrics = first_gradients(weight=0.5, gate="sign")
    torch.testing.assert_close(signed - host, added * float(cosine >= 0), rtol=1e-3, atol=1e-6)
    assert metrics["auxiliary/gate/factor"] == float(cosine >= 0)


class AgainstTheHost(nn.Module):
    """An objective whose gradient is the host's own, turned round, so that the gate must close."""

    def __init__(self):
        super().__init__()
        self.wish = None

    def forward(self, pairs):
        from contraux.core import Outcome

        return Outcome((pairs.query * 0).sum() + sum((p * g).sum() for p, g in self.wish), {})

    def update(self):
        pass


@pytest.mark.parametrize("gate", ["sign", "cosine"])
def test_an_auxiliary_that_pulls_against_the_host_stays_outside(gate):
    base = weights(HOSTS["PPO"].make().learn(64))
    model, objective = HOSTS["PPO"].make(), AgainstTheHost()

    class Turn(BaseCallback):
        def _on_training_start(self):
            parameters = list(self.model.policy.features_extractor.parameters())
            hook = lambda *_: setattr(objective, "wish", [(p, -p.grad.clone()) for p in parameters])  # noqa: E731
            self.handle = self.model.policy.optimizer.register_step_pre_hook(hook)

        def _on_step(self):
            return True

        def _on_training_end(self):
            self.handle.remove()

    auxiliary = ContrastiveAuxiliary(objective, weight=1.0, gate=gate, batch_size=16)
    model.learn(64, callback=[Turn(), auxiliary])
    assert auxiliary.updates > 0
    assert model.logger.name_to_value["auxiliary/gate/cosine"] == pytest.approx(-1, abs=1e-5)
    assert torch.equal(base, weights(model))


class Cosines(BaseCallback):
    """Records the cosine of every update before the auxiliary's metrics are taken."""

    def __init__(self, auxiliary):
        super().__init__()
        self.auxiliary, self.seen = auxiliary, []

    def _on_training_start(self):
        for step in self.auxiliary.steps.values():
            remember = step._remember
            step._remember = lambda metrics, remember=remember: (
                self.seen.append(metrics["gate/cosine"].item()), remember(metrics),
            )  # fmt: skip

    def _on_step(self):
        return True


@pytest.mark.parametrize("name", ["A2C", "DQN", "SAC", "SAC-shared", "RecurrentPPO"])
def test_the_gate_has_the_hosts_gradient_on_other_algorithms(name, recwarn):
    auxiliary = ContrastiveAuxiliary("temporal", gate="sign", batch_size=16, encoder="all")
    look = Cosines(auxiliary)
    HOSTS[name].make().learn(HOSTS[name].steps, callback=[auxiliary, look])
    assert all(step.updates > 0 for step in auxiliary.steps.values())
    assert sum(cosine != 0 for cosine in look.seen) > len(look.seen) / 2
    assert not [one for one in recwarn if "a gradient of the host to compare" in str(one.message)]


@pytest.mark.parametrize("name", ["TRPO", "TD3-shared"])
def test_a_gate_without_a_gradient_to_compare_with_says_so(name):
    auxiliary = ContrastiveAuxiliary("temporal", gate="cosine", batch_size=16, encoder="all")
    with pytest.warns(UserWarning, match=r"gate='cosine' must have a gradient of the host.*keeps it out"):
        HOSTS[name].make().learn(HOSTS[name].steps, callback=auxiliary)
    for step in auxiliary.steps.values():
        assert step.updates > 0 and "gate/factor" in step._metrics


# --- schedule ---------------------------------------------------------------------------------------------------------


def test_schedules_by_hand():
    assert [SCHEDULES["constant"](x) for x in (1.0, 0.5, 0.0)] == [1, 1, 1]
    assert [SCHEDULES["linear"](x) for x in (1.0, 0.25, 0.0)] == [1, 0.25, 0]
    assert SCHEDULES["cosine"](1.0) == 1 and SCHEDULES["cosine"](0.0) == 0
    assert SCHEDULES["cosine"](0.25) == pytest.approx((1 - math.sqrt(0.5)) / 2)


@pytest.mark.parametrize("mode", ["joint", "separate", "shared"])
def test_the_weight_follows_the_progress_of_learn(mode):
    model = conv_ppo()
    auxiliary = ContrastiveAuxiliary("curl", weight=2.0, schedule="linear", mode=mode, batch_size=8)
    seen = []

    class Look(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_start(self):
            seen.append((self.model._current_progress_remaining, auxiliary.current_weight()))

    model.learn(96, callback=[auxiliary, Look()])
    assert [remaining for remaining, _ in seen] == pytest.approx([1, 2 / 3, 1 / 3])
    assert [weight for _, weight in seen] == pytest.approx([2, 4 / 3, 2 / 3])
    assert auxiliary.current_weight() == pytest.approx(0)


def test_at_weight_zero_of_a_schedule_the_host_learns_alone():
    """The last update of a linear schedule has weight 0: with one rollout that is every update."""
    base = HOSTS["PPO"].make().learn(64)
    auxiliary = ContrastiveAuxiliary("temporal", schedule="linear", batch_size=16)
    annealed = HOSTS["PPO"].make().learn(64, callback=auxiliary)
    assert auxiliary.updates > 0
    assert torch.equal(weights(base), weights(annealed))


# --- shared pass ------------------------------------------------------------------------------------------------------

SHARED = {
    "PPO": lambda: conv_ppo(),
    "A2C": lambda: A2C("CnnPolicy", make_vec_env("contraux-tests/Ball-v0", 2, seed=3), n_steps=8, seed=1),
    "DQN": lambda: DQN(
        "CnnPolicy", make_vec_env("contraux-tests/Ball-v0", 2, seed=3), learning_starts=40, batch_size=8,
        buffer_size=200, train_freq=4, gradient_steps=2, seed=1,
    ),
    "SAC": lambda: SAC(
        "CnnPolicy", make_vec_env("contraux-tests/Ball-v0", 2, seed=3, env_kwargs={"continuous": True}),
        learning_starts=40, batch_size=8, buffer_size=200, train_freq=8, seed=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_shared_weight_zero_is_bit_identical_and_weight_one_is_not(name):
    final = {}
    for weight in (None, 0.0, 1.0):
        model = SHARED[name]()
        auxiliary = None if weight is None else ContrastiveAuxiliary("curl", weight=weight, mode="shared")
        model.learn(64, callback=auxiliary)
        final[weight] = weights(model)
        if auxiliary is not None:
            assert auxiliary.updates > 0 and next(iter(auxiliary.steps.values())).skipped == 0
            assert not any(found.module._forward_hooks for found in find_encoders(model))
    assert torch.equal(final[None], final[0.0])
    assert not torch.equal(final[None], final[1.0])


def test_the_shared_gradient_is_that_of_a_pass_of_its_own():
    """What reaches the encoder less the host's own gradient is that of the auxiliary's loss on the host's batch."""
    records = {}
    for weight in (0.0, 0.25):
        model, record = conv_ppo(n_epochs=1, batch_size=32, max_grad_norm=1e9), Gradients()
        auxiliary = ContrastiveAuxiliary("curl", weight=weight, mode="shared", seed=0, max_grad_norm=None)
        caught = {}

        class Catch(BaseCallback):
            """Keeps the batch that the encoder saw, and the state before the first update."""

            def _on_rollout_end(self, model=model, auxiliary=auxiliary, caught=caught):
                step = auxiliary.steps["features_extractor"]
                caught["generator"] = auxiliary.generator.get_state()
                encoder = model.policy.features_extractor
                encode = type(encoder).forward

                def forward(observations):
                    if torch.is_grad_enabled():
                        caught["seen"] = observations.clone()
                    return encode(encoder, observations)

                encoder.forward = forward
                caught["step"], caught["encoder"] = step, encoder

            def _on_step(self):
                return True

        model.learn(32, callback=[auxiliary, Catch(), record])
        records[weight] = record.seen[0]
    added = (records[0.25] - records[0.0]) / 0.25
    # the same loss with a forward and backward pass of its own, from the same weights
    model = conv_ppo(n_epochs=1, batch_size=32)
    own = ContrastiveAuxiliary("curl", weight=0.0, mode="shared", seed=0, max_grad_norm=None)
    own.model = model
    own._build()
    step, encoder = own.steps["features_extractor"], model.policy.features_extractor
    generator = torch.Generator()
    generator.set_state(caught["generator"])
    pairs = step.source.pairs_with(encoder(caught["seen"]), caught["seen"], generator)
    step.objective(pairs).loss.backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in encoder.parameters()])
    assert expected.norm() > 0
    torch.testing.assert_close(added, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))


def test_shared_heads_learn_and_every_is_kept():
    model = conv_ppo()
    auxiliary = ContrastiveAuxiliary("curl", mode="shared", every=2)
    model.learn(64, callback=auxiliary)
    step = auxiliary.steps["features_extractor"]
    assert step.host_steps == 8 and step.updates == 4
    assert auxiliary.store.kind == "no store"


def test_shared_goes_with_augmented_queries_and_with_save_and_load(tmp_path):
    model = conv_ppo()
    auxiliary = ContrastiveAuxiliary("curl", mode="shared")
    augmentation = ObservationAugmentation({"image": RandomShift(2)})
    model.learn(32, callback=[auxiliary, augmentation])
    model.save(tmp_path / "model")
    auxiliary.save(tmp_path / "model")
    again = ContrastiveAuxiliary.load(tmp_path / "model")
    assert (again.mode, again.gate, again.schedule) == ("shared", "none", "constant")
    loaded = PPO.load(tmp_path / "model", env=model.get_env())
    loaded.learn(32, callback=[again, augmentation], reset_num_timesteps=False)
    assert again.updates > auxiliary.updates


@pytest.mark.parametrize(
    ("objective", "found"),
    [
        ("temporal", "ObservationPairs with k=1, keys with gradient"),
        ("atc", "ObservationPairs with k=3;|ObservationPairs with k=3$"),
        (lambda: preset("curl", "source.momentum=null"), "k=0, keys with gradient"),
    ],
)
def test_what_cannot_share_is_refused(objective, found):
    auxiliary = ContrastiveAuxiliary(objective() if callable(objective) else objective, mode="shared")
    with pytest.raises(ValueError, match=rf"mode='shared' needs .*; got .*{found}"):
        conv_ppo().learn(32, callback=auxiliary)


def test_padded_sequences_are_refused():
    model = RecurrentPPO("MlpLstmPolicy", make_vec_env("CartPole-v1", 2), n_steps=16, policy_kwargs=dict(ENCODER))
    with pytest.raises(ValueError, match=r"padded sequences .*: use mode='joint'"):
        model.learn(32, callback=ContrastiveAuxiliary("curl", mode="shared"))


def test_a_host_that_differentiates_its_constraint_is_refused():
    model = TRPO("CnnPolicy", make_vec_env("contraux-tests/Ball-v0", 2), n_steps=16)
    with pytest.raises(ValueError, match=r"got TRPO, which takes those of its constraint too: use mode='joint'"):
        model.learn(32, callback=ContrastiveAuxiliary("curl", mode="shared"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"gate": "sign", "mode": "separate"}, "needs mode='joint', got 'separate'"),
        ({"gate": "maybe"}, "unknown gate 'maybe'"),
        ({"schedule": "exponential"}, "unknown schedule 'exponential'"),
    ],
)
def test_bad_settings(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        ContrastiveAuxiliary("temporal", **settings)
