"""Every preset on a few algorithms: inert at weight 0, at work at weight 1, and saved with what it has learned."""

from functools import cache

import pytest
import sb3_hosts  # registers the environments
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.env_util import make_vec_env

from contraux.clrl import ContrastiveAuxiliary
from contraux.clrl.discovery import find_encoders
from contraux.core.preset import preset, presets

BATCH, STEPS = 8, 64
OFF_POLICY = {"learning_starts": 32, "batch_size": BATCH, "buffer_size": 200, "train_freq": 8, "gradient_steps": 2}
ON_POLICY = {"n_steps": 16, "batch_size": 16, "n_epochs": 1}
SETTINGS = {"PPO": ON_POLICY, "RecurrentPPO": ON_POLICY, "DQN": OFF_POLICY, "SAC": OFF_POLICY}
ALGORITHMS = ("PPO", "DQN", "SAC")


def needs_pixels(name):
    """Whether the objective looks at a feature map, or tells views apart that only images have."""
    source = preset(name).source
    return source["_target_"].endswith(".FeatureMaps") or (source.k == 0 and source.views.vector is None)


def environment(algorithm, pixels):
    if pixels:
        kwargs = {"size": 44, "continuous": algorithm == "SAC"}
        return make_vec_env("contraux-tests/Ball-v0", n_envs=2, seed=3, env_kwargs=kwargs)
    return make_vec_env(sb3_hosts.HOSTS[algorithm].env, n_envs=2, seed=3)


def make(algorithm, pixels):
    host = sb3_hosts.HOSTS[algorithm]
    if not pixels:
        return host.make(**SETTINGS[algorithm])
    recurrent = {"lstm_hidden_size": 16} if algorithm == "RecurrentPPO" else {"net_arch": [16]}
    return host.algorithm(
        host.policy.replace("Mlp", "Cnn"),
        environment(algorithm, True),
        policy_kwargs={"features_extractor_kwargs": {"features_dim": 32}, **recurrent},
        seed=1,
        device="cpu",
        **SETTINGS[algorithm],
    )


def weights(model):
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def encoder_weights(model):
    return [parameter.detach().clone() for found in find_encoders(model) for parameter in found.module.parameters()]


@cache
def trained_alone(algorithm, pixels):
    model = make(algorithm, pixels).learn(STEPS)
    return weights(model), encoder_weights(model)


CASES = [(name, algorithm) for name in presets() for algorithm in ALGORITHMS] + [("cpc", "RecurrentPPO")]


@pytest.mark.parametrize(("name", "algorithm"), CASES)
def test_weight_zero_leaves_every_weight_bit_identical(name, algorithm):
    pixels = needs_pixels(name)
    auxiliary = ContrastiveAuxiliary(name, weight=0, batch_size=BATCH)
    after = weights(make(algorithm, pixels).learn(STEPS, callback=auxiliary))
    assert auxiliary.updates > 0
    assert all(torch.equal(value, after[key]) for key, value in trained_alone(algorithm, pixels)[0].items())


# Every algorithm with some presets, and every preset with three algorithms more, in turn.
OTHERS = [name for name in sb3_hosts.HOSTS if name not in (*ALGORITHMS, "RecurrentPPO")]
VECTOR = [name for name in presets() if not needs_pixels(name)]
TURNS = [(name, OTHERS[(3 * i + j) % len(OTHERS)]) for i, name in enumerate(VECTOR) for j in range(3)]


@cache
def encoder_alone(algorithm):
    return encoder_weights(sb3_hosts.HOSTS[algorithm].make().learn(sb3_hosts.HOSTS[algorithm].steps))


@pytest.mark.parametrize(("name", "algorithm"), TURNS)
def test_weight_one_moves_the_encoder_of_other_algorithms_too(name, algorithm):
    auxiliary = ContrastiveAuxiliary(name, batch_size=BATCH)
    model = sb3_hosts.HOSTS[algorithm].make().learn(sb3_hosts.HOSTS[algorithm].steps, callback=auxiliary)
    assert auxiliary.updates > 0
    moved = encoder_weights(model)
    assert all(one.isfinite().all() for one in moved)
    assert any(not torch.equal(one, other) for one, other in zip(moved, encoder_alone(algorithm), strict=True))


class Look(BaseCallback):
    """The auxiliary's state when learning starts."""

    def __init__(self, auxiliary):
        super().__init__()
        self.auxiliary = auxiliary

    def _on_training_start(self):
        self.state = {key: value.clone() for key, value in self.auxiliary.state()[0].items()}

    def _on_step(self):
        return True


@pytest.mark.parametrize(("name", "algorithm"), CASES)
def test_weight_one_moves_the_encoder_and_goes_on_from_what_was_saved(name, algorithm):
    pixels = needs_pixels(name)
    auxiliary = ContrastiveAuxiliary(name, weight=1.0, batch_size=BATCH)
    model = make(algorithm, pixels).learn(STEPS, callback=auxiliary)
    moved = encoder_weights(model)
    assert any(
        not torch.equal(one, other) for one, other in zip(moved, trained_alone(algorithm, pixels)[1], strict=True)
    )
    saved = auxiliary.state()[0]
    model.save("model")
    auxiliary.save("model")

    loaded = type(model).load("model", env=environment(algorithm, pixels))
    if hasattr(model, "replay_buffer"):
        loaded.replay_buffer = model.replay_buffer
    restored = ContrastiveAuxiliary.load("model")
    look = Look(restored)
    loaded.learn(STEPS // 2, callback=CallbackList([restored, look]), reset_num_timesteps=False)
    for key, value in saved.items():
        if not key.startswith("store/broken"):
            torch.testing.assert_close(look.state[key], value, rtol=0, atol=0, msg=key)
    assert restored.updates > auxiliary.updates
