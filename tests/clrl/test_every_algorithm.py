"""What must hold on every Stable-Baselines3 and sb3-contrib algorithm, for shared and for separate encoders."""

import warnings

import pytest
import torch
from sb3_hosts import HOSTS
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from contraux.clrl import ContrastiveAuxiliary
from contraux.clrl.discovery import find_encoders, find_optimizers
from contraux.core.preset import preset


def weights(model):
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def encoder_weights(model):
    return [parameter.clone() for found in find_encoders(model) for parameter in found.module.parameters()]


def hooks(model):
    return [
        hook
        for optimizer in find_optimizers(model).values()
        for hook in (*optimizer._optimizer_step_pre_hooks.values(), *optimizer._optimizer_step_post_hooks.values())
    ]


@pytest.fixture(scope="module")
def base():
    """Final weights of the plain algorithm, trained once for all tests here."""
    trained = {}

    def get(name):
        if name not in trained:
            trained[name] = weights(HOSTS[name].make().learn(HOSTS[name].steps))
        return trained[name]

    return get


@pytest.mark.parametrize("mode", ["joint", "separate"])
@pytest.mark.parametrize("name", HOSTS)
def test_weight_zero_leaves_every_weight_bit_identical(name, mode, base):
    auxiliary = ContrastiveAuxiliary("temporal", weight=0, batch_size=16, mode=mode, encoder="all")
    model = HOSTS[name].make().learn(HOSTS[name].steps, callback=auxiliary)
    assert auxiliary.updates > 0
    assert same(base(name), weights(model))


@pytest.mark.parametrize("mode", ["joint", "separate"])
@pytest.mark.parametrize("name", HOSTS)
def test_weight_one_changes_the_encoder_and_leaves_no_hook(name, mode, base):
    auxiliary = ContrastiveAuxiliary("temporal", weight=1.0, batch_size=16, mode=mode)
    model = HOSTS[name].make()
    before = weights(model)
    model.learn(HOSTS[name].steps, callback=auxiliary)
    after, plain = weights(model), base(name)
    moved = [key for key in after if "features_extractor" in key and not torch.equal(after[key], before[key])]
    assert auxiliary.updates > 0
    assert any(not torch.equal(after[key], plain[key]) for key in moved)
    assert not hooks(model)


@pytest.mark.parametrize("name", HOSTS)
def test_learn_save_load_learn_goes_on_where_it_was(name):
    """Heads, momentum, queue, ring buffer, optimizer and random state are back in place, and learning goes on."""
    host = HOSTS[name]
    objective = preset(
        "temporal",
        "source.momentum=0.9",
        "module.projection={_target_: contraux.core.encoders.ProjectionHead, _partial_: true, out: 32}",
        "module.sampler={_target_: contraux.core.samplers.Queue, dim: 32, size: 40}",
    )
    auxiliary = ContrastiveAuxiliary(objective, weight=1.0, batch_size=16)
    model = host.make().learn(host.steps, callback=auxiliary)
    tensors, values = auxiliary.state()
    model.save("model")
    auxiliary.save("model")

    loaded = host.load("model")
    restored = ContrastiveAuxiliary.load("model")
    assert (restored.weight, restored.encoder) == (1.0, "critic")
    if hasattr(model, "replay_buffer"):
        loaded.replay_buffer = model.replay_buffer
    seen = {}

    class Look(BaseCallback):
        def _on_training_start(self):
            seen["state"] = {key: value.clone() for key, value in restored.state()[0].items()}
            seen["updates"] = restored.updates

        def _on_step(self):
            return True

    loaded.learn(host.steps, callback=CallbackList([restored, Look()]), reset_num_timesteps=False)
    assert seen["updates"] == sum(one["updates"] for one in values["encoders"].values()) > 0
    kinds = {"module", "source", "optimizer"}
    assert kinds <= {key.split("/")[1].split(".")[0] for key in seen["state"] if "/" in key}
    for key, value in tensors.items():
        if not key.startswith("store/broken"):
            torch.testing.assert_close(seen["state"][key], value, rtol=0, atol=0, msg=key)
    assert restored.updates > seen["updates"]


class Failing(BaseCallback):
    def __init__(self, at):
        super().__init__()
        self.at = at

    def _on_step(self):
        if self.num_timesteps >= self.at:
            raise RuntimeError("the environment broke")
        return True


@pytest.mark.parametrize("name", HOSTS)
def test_no_hook_is_left_when_learn_raises_and_going_on_without_warns(name):
    host = HOSTS[name]
    model = host.make()
    auxiliary = ContrastiveAuxiliary("temporal", batch_size=16)
    with pytest.raises(RuntimeError, match="the environment broke"):
        model.learn(host.steps, callback=[auxiliary, Failing(host.steps - 10)])
    assert not hooks(model)
    updates = auxiliary.updates
    with pytest.warns(UserWarning, match=r"trained with a contrastive auxiliary \(temporal\) and goes on without"):
        model.learn(host.steps)
    assert auxiliary.updates == updates
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.learn(host.steps, callback=auxiliary)
    assert auxiliary.updates > updates


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_no_hook_is_left_when_the_update_itself_raises(name, monkeypatch):
    host = HOSTS[name]
    model = host.make()

    def broken_step(*_args, **_kwargs):
        assert hooks(model)
        raise FloatingPointError("nan in the host's update")

    for optimizer in find_optimizers(model).values():
        monkeypatch.setattr(optimizer, "step", broken_step)
    with pytest.raises(FloatingPointError, match="nan in the host's update"):
        model.learn(host.steps, callback=ContrastiveAuxiliary("temporal", batch_size=16))
    assert not hooks(model)
    assert type(model).__name__ == host.algorithm.__name__
    assert isinstance(model, host.algorithm)
