"""What users do to a model between, around and beside calls of `learn`."""

import copy
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_hosts import HOSTS
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import SubprocVecEnv
from torch import nn

from contraux.agents import ContrastiveDQN, ContrastivePPO
from contraux.clrl import ContrastiveAuxiliary, ObservationAugmentation, sidecar, vector_encoder
from contraux.clrl.stores import ReplayRows
from contraux.core.gradient import auxiliary_gradients
from contraux.core.objectives import Contrastive
from contraux.core.pairs import Outcome
from contraux.core.preset import preset
from contraux.core.views import VectorNoise


def auxiliary(**kwargs):
    return ContrastiveAuxiliary("temporal", batch_size=16, **kwargs)


def test_environments_in_processes_of_their_own():
    for env_id, policy, kwargs in (("CartPole-v1", "MlpPolicy", vector_encoder()),):
        env = make_vec_env(env_id, n_envs=2, seed=0, vec_env_cls=SubprocVecEnv)
        callback = auxiliary()
        PPO(policy, env, n_steps=32, batch_size=16, seed=0, policy_kwargs=kwargs).learn(64, callback=callback)
        env.close()
        assert callback.updates > 0


def test_images_from_processes_of_their_own():
    import sb3_hosts

    env = make_vec_env(sb3_hosts.Ball, n_envs=2, seed=0, vec_env_cls=SubprocVecEnv)
    callback = auxiliary()
    PPO("CnnPolicy", env, n_steps=32, batch_size=16, n_epochs=1, seed=0).learn(64, callback=callback)
    env.close()
    assert callback.updates > 0


def test_another_replay_buffer_is_followed():
    host = HOSTS["DQN"]
    model, callback = host.make(), auxiliary()
    model.learn(host.steps, callback=callback)
    model.save_replay_buffer("buffer")
    model.load_replay_buffer("buffer")
    model.learn(host.steps, callback=callback, reset_num_timesteps=False)
    assert isinstance(callback.store, ReplayRows)
    assert callback.store.buffer is model.replay_buffer


def test_encoders_that_changed_are_refused_and_optimizers_followed():
    model, callback = HOSTS["PPO"].make(), auxiliary()
    model.learn(64, callback=callback)
    model.policy.optimizer = torch.optim.Adam(model.policy.parameters(), lr=1e-3)
    updates = callback.updates
    model.learn(64, callback=callback)
    assert callback.updates > updates
    for parameter in model.policy.features_extractor.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="found frozen ones only: VectorEncoder"):
        model.learn(64, callback=callback)


def test_a_buffer_that_can_never_serve_is_refused_at_once():
    model = HOSTS["PPO"].make()
    with pytest.raises(ValueError, match=r"buffer_size must hold a batch of 16 .* at least 16 frames, got 10"):
        model.learn(64, callback=auxiliary(buffer_size=10))
    with pytest.raises(ValueError, match=r"windows of k \+ 1 = 61 observations in each of 2 env.* at least 122 frames"):
        model.learn(64, callback=auxiliary(buffer_size=100, k=60))


def test_a_learn_without_any_update_warns():
    model = HOSTS["SAC"].make(learning_starts=10_000)
    with pytest.warns(UserWarning, match="took part in no update of this learn"):
        model.learn(64, callback=auxiliary())


def test_the_same_callback_passed_twice_stores_each_observation_once():
    callback = auxiliary()
    model = ContrastivePPO("MlpPolicy", make_vec_env("CartPole-v1", n_envs=2), n_steps=32, batch_size=16,
                           policy_kwargs=vector_encoder(), auxiliary=callback)  # fmt: skip
    model.learn(64, callback=CallbackList([callback]))
    assert callback.store.written.tolist() == [32, 32]


class Keep(KVWriter):
    def __init__(self):
        self.keys = set()

    def write(self, key_values, key_excluded, step=0):
        self.keys |= set(key_values)


def test_two_auxiliaries_are_logged_by_name():
    keep, model = Keep(), HOSTS["PPO"].make()
    model.set_logger(Logger(None, [keep]))
    both = [auxiliary(), ContrastiveAuxiliary("curl", batch_size=16)]
    model.learn(128, callback=both)
    assert {"auxiliary/temporal/loss", "auxiliary/curl/loss"} <= keep.keys


def test_dropping_one_of_two_callbacks_warns_and_dropping_none_does_not():
    model = HOSTS["PPO"].make()
    augmentation, callback = ObservationAugmentation({"vector": VectorNoise(0.1)}), auxiliary()
    model.learn(64, callback=[callback, augmentation])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.learn(64, callback=[callback, augmentation])
    with pytest.warns(UserWarning, match="trained with a contrastive auxiliary .* and goes on without"):
        model.learn(64, callback=augmentation)


def test_a_successor_of_a_callback_that_is_gone_does_not_warn():
    model = HOSTS["PPO"].make()
    model.learn(64, callback=auxiliary())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.learn(64, callback=auxiliary())
        type(model).load  # noqa: B018 - the class is still the algorithm's own to look at
        HOSTS["PPO"].make().learn(64)


def test_a_direct_update_after_learn_is_without_the_auxiliary():
    model, callback = HOSTS["PPO"].make(), auxiliary()
    model.learn(64, callback=callback)
    updates = callback.updates
    with pytest.warns(UserWarning, match="goes on without"):
        model.train()
    assert callback.updates == updates


def test_models_that_met_an_auxiliary_are_copied_and_pickled_as_before():
    model, callback = HOSTS["DQN"].make(), auxiliary()
    model.learn(HOSTS["DQN"].steps, callback=callback)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(twin) is DQN
        for name, value in model.policy.state_dict().items():
            assert torch.equal(value, twin.policy.state_dict()[name])


def test_a_class_of_a_watched_model_makes_models_that_never_met_one():
    model, callback = HOSTS["PPO"].make(), auxiliary()
    model.learn(64, callback=callback)
    model.save("model")
    other = type(model).load("model", env=make_vec_env("CartPole-v1", n_envs=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        other.learn(64)


def test_another_number_of_environments_begins_with_an_empty_ring():
    model, callback = HOSTS["PPO"].make(), auxiliary()
    model.learn(64, callback=callback)
    model.save("model")
    callback.save("model")
    loaded = PPO.load("model", env=make_vec_env("CartPole-v1", n_envs=3))
    restored = ContrastiveAuxiliary.load("model")
    with pytest.warns(UserWarning, match="the auxiliary's buffer begins empty: the saved ring buffer must hold"):
        loaded.learn(96, callback=restored)
    assert restored.updates > callback.updates


def test_heads_are_never_shared_between_encoders():
    callback = ContrastiveAuxiliary(Contrastive(16), batch_size=16, encoder="all")
    HOSTS["PPO-separate"].make().learn(64, callback=callback)
    first, second = (step.objective for step in callback.steps.values())
    assert first is not second


def test_agents_load_objective_modules_and_check_what_they_are_given():
    env = make_vec_env("CartPole-v1", n_envs=2)
    model = ContrastivePPO("MlpPolicy", env, n_steps=32, batch_size=16, policy_kwargs=vector_encoder(),
                           auxiliary=ContrastiveAuxiliary(Contrastive(64), batch_size=16))  # fmt: skip
    model.learn(64).save("model")
    with pytest.raises(ValueError, match="pass the module again"):
        ContrastivePPO.load("model")
    assert ContrastivePPO.load("model", objective=Contrastive(64)).auxiliary is not None
    assert ContrastivePPO.load("model", auxiliary="curl").auxiliary.name == "curl"
    assert ContrastivePPO.load("model", auxiliary=None).auxiliary is None
    with pytest.raises(ValueError, match="auxiliary must be a preset's name"):
        ContrastivePPO.load("model", auxiliary=3)


def test_bytes_as_vectors_meet_their_view_as_floats():
    class Memory(gym.Env):
        observation_space, action_space = spaces.Box(0, 255, (16,), np.uint8), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), 0.0, False, False, {}

    callback = ContrastiveAuxiliary("curl", batch_size=16)
    env = make_vec_env(Memory, n_envs=2)
    PPO("MlpPolicy", env, n_steps=32, batch_size=16, policy_kwargs=vector_encoder()).learn(64, callback=callback)
    assert callback.updates > 0


def test_a_sidecar_cannot_name_a_loader_of_pickles(tmp_path):
    tensors, values = auxiliary().state()
    values["objective"]["source"] = {"_target_": "contraux.agents.ContrastivePPO.load", "path": "evil.zip"}
    sidecar.write(sidecar.sidecar_path(tmp_path / "m"), tensors, values)
    with pytest.raises(ValueError, match=r"would run 'contraux\.agents\.ContrastivePPO\.load', which"):
        HOSTS["PPO"].make().learn(64, callback=ContrastiveAuxiliary.load(tmp_path / "m"))


def test_encoders_with_aliased_parts_are_saved(tmp_path):
    from contraux.clrl import VectorEncoder

    class Aliased(VectorEncoder):
        def __init__(self, observation_space):
            super().__init__(observation_space, features_dim=16)
            self.again = self.mlp

    env = make_vec_env("CartPole-v1", n_envs=2)
    callback = ContrastiveAuxiliary(preset("temporal", "source.momentum=0.9"), batch_size=16)
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=16, policy_kwargs={"features_extractor_class": Aliased})
    model.learn(64, callback=callback)
    callback.save(tmp_path / "m")
    assert ContrastiveAuxiliary.load(tmp_path / "m").name == "custom"


def test_gradients_that_share_memory_are_clipped_once():
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(4))
    v = torch.tensor([1.0, 2.0, 3.0, 4.0])
    loss = ((b + torch.cat([torch.zeros(1), a])) * v).sum()
    (of_a, of_b), outcome = auxiliary_gradients(Outcome(loss, {}), [a, b], 1.0)
    norm = (2**2 + 3**2 + 4**2 + 1 + 2**2 + 3**2 + 4**2) ** 0.5
    torch.testing.assert_close(of_a, v[1:] / norm)
    torch.testing.assert_close(of_b, v / norm)
    assert outcome.metrics["gradient_norm"].item() == pytest.approx(norm)


def test_momentum_zero_makes_keys_without_a_gradient():
    with_copy = ContrastiveAuxiliary(preset("temporal", "source.momentum=0"), batch_size=16)
    HOSTS["PPO"].make().learn(64, callback=with_copy)
    (step,) = with_copy.steps.values()
    assert not list(step.source.parameters())
    pairs = step.source(with_copy.store.sample(16, 1, with_copy.generator), with_copy.generator)
    assert pairs.query.requires_grad and not pairs.key.requires_grad


def test_deepcopy_of_an_agent():
    env = make_vec_env("CartPole-v1", n_envs=1)
    model = ContrastiveDQN("MlpPolicy", env, learning_starts=20, buffer_size=200, policy_kwargs=vector_encoder(),
                           auxiliary=ContrastiveAuxiliary(batch_size=16))  # fmt: skip
    model.learn(80)
    twin = copy.deepcopy(model)
    assert torch.equal(next(twin.policy.parameters()), next(model.policy.parameters()))
