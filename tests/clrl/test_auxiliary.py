"""The seam itself: where the gradient goes, what is drawn, logged and refused."""

import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
from gymnasium import spaces
from sb3_hosts import HOSTS
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize
from torch import nn

from contraux.clrl import ContrastiveAuxiliary, ObservationAugmentation, VectorEncoder, vector_encoder
from contraux.clrl.auxiliary_step import AuxiliaryStep, StepSettings
from contraux.clrl.discovery import choose_encoders, find_encoders, find_optimizers
from contraux.clrl.stores import ReplayRows, RingBuffer
from contraux.core.objectives import Contrastive
from contraux.core.pairs import Outcome, Pairs
from contraux.core.preset import preset
from contraux.core.views import RandomShift

# --- the gradient, by hand ------------------------------------------------------------------------------------


class Scalars:
    """A store, a source and an objective in one: the loss is 3 w x + 5 h for encoder weight w and head weight h."""

    horizon = 0

    def __init__(self, encoder):
        self.encoder, self.momentum_updates = encoder, 0

    def sample(self, size, horizon, generator):
        return self

    def __call__(self, window, generator):
        query = self.encoder(torch.ones(1, 1))
        return Pairs(query, query, torch.zeros(1, dtype=torch.long))

    def update(self):
        self.momentum_updates += 1

    def state_dict(self):
        return {}


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Parameter(torch.tensor(2.0))

    def forward(self, pairs):
        return Outcome(3 * pairs.query.sum() + 5 * self.head, {"seen": pairs.query.detach().sum()})

    def update(self):
        pass


def one_step(mode="joint", weight=1.0, max_grad_norm=None, host_gradient=7.0, every=1, steps=1, learning_rate=None):
    encoder = nn.Linear(1, 1, bias=False)
    encoder.weight.data.fill_(1.0)
    host = torch.optim.SGD(encoder.parameters(), lr=0.1)
    source, objective = Scalars(encoder), Sum()
    step = AuxiliaryStep(
        encoder, host, source, objective, StepSettings(weight, mode, every, 1, learning_rate, max_grad_norm)
    )
    with step.attached(source, torch.Generator(), lambda: weight):
        for _ in range(steps):
            encoder.weight.grad = None if host_gradient is None else torch.full((1, 1), host_gradient)
            host.step()
    return encoder, objective, step, source


def test_joint_adds_the_weighted_gradient_to_the_hosts_before_its_step():
    encoder, _, _, source = one_step(weight=0.5)
    # host 7, auxiliary 3: 1 - 0.1 (7 + 0.5 * 3)
    assert encoder.weight.item() == pytest.approx(1 - 0.1 * 8.5)
    assert source.momentum_updates == 1


def test_joint_gives_a_gradient_where_the_host_has_none():
    encoder, *_ = one_step(weight=0.5, host_gradient=None)
    assert encoder.weight.item() == pytest.approx(1 - 0.1 * 1.5)


def test_the_auxiliary_is_clipped_on_its_own_and_weighted_after():
    encoder, _, step, _ = one_step(weight=2.0, max_grad_norm=0.1)
    norm = (3**2 + 5**2) ** 0.5  # encoder and head together
    assert encoder.weight.item() == pytest.approx(1 - 0.1 * (7 + 2 * 3 * 0.1 / norm))
    metrics = step.take_metrics()
    assert metrics["gradient_norm"] == pytest.approx(norm)
    assert metrics["loss"] == pytest.approx(3 + 10)
    assert step.take_metrics() == {}


def test_heads_take_adams_first_step_of_the_hosts_learning_rate_whatever_the_weight():
    for weight in (0.0, 0.5, 1.0):
        _, objective, _, _ = one_step(weight=weight)
        assert objective.head.item() == pytest.approx(2.0 - 0.1, rel=1e-5)
    _, objective, _, _ = one_step(learning_rate=0.01)
    assert objective.head.item() == pytest.approx(2.0 - 0.01, rel=1e-5)


def test_separate_steps_after_the_host_and_its_weight_scales_the_step():
    moved = {}
    for weight in (0.0, 0.5, 1.0):
        encoder, *_ = one_step(mode="separate", weight=weight)
        moved[weight] = encoder.weight.item()
        assert encoder.weight.grad.item() == 7.0  # the host's gradient is put back
    assert moved[0.0] == pytest.approx(1 - 0.7)
    assert moved[1.0] == pytest.approx(1 - 0.7 - 0.1, rel=1e-5)
    assert moved[0.5] == pytest.approx(1 - 0.7 - 0.05, rel=1e-5)


def test_separate_with_weight_two_is_the_double_step_of_curls_code():
    """Two Adams, each with the gradient of one contrastive loss: the encoder's own, and that of encoder and head."""
    weight, head = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.tensor(2.0))
    host, *theirs = (
        torch.optim.SGD([weight], lr=0.1),
        torch.optim.Adam([weight], 0.1),
        torch.optim.Adam([weight, head], 0.1),
    )
    for _ in range(5):
        weight.grad = torch.tensor(7.0)
        host.step()
        weight.grad, head.grad = torch.tensor(3.0), torch.tensor(5.0)
        for optimizer in theirs:
            optimizer.step()
    encoder, objective, *_ = one_step(mode="separate", weight=2.0, steps=5)
    assert encoder.weight.item() == pytest.approx(weight.item(), rel=1e-5)
    assert objective.head.item() == pytest.approx(head.item(), rel=1e-5)


def test_every_third_step_takes_part():
    _, _, step, _ = one_step(every=3, steps=10)
    assert (step.host_steps, step.updates) == (10, 3)


def test_a_loss_that_is_not_finite_stops_with_a_sentence():
    *_, step, _ = one_step(host_gradient=float("nan"), steps=2)
    with pytest.raises(FloatingPointError, match="must be finite, got nan after 2 updates; lower weight"):
        step.take_metrics()


# --- discovery ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "role", "encoder", "optimizer"),
    [
        ("PPO", "critic", ["features_extractor"], ["policy.optimizer"]),
        ("PPO", "actor", ["features_extractor"], ["policy.optimizer"]),
        ("PPO-separate", "critic", ["vf_features_extractor"], ["policy.optimizer"]),
        ("PPO-separate", "actor", ["features_extractor"], ["policy.optimizer"]),
        ("DQN", "critic", ["q_net.features_extractor"], ["policy.optimizer"]),
        ("QRDQN", "actor", ["quantile_net.features_extractor"], ["policy.optimizer"]),
        ("SAC", "critic", ["critic.features_extractor"], ["critic.optimizer"]),
        (
            "SAC",
            "all",
            ["actor.features_extractor", "critic.features_extractor"],
            ["actor.optimizer", "critic.optimizer"],
        ),
        ("SAC-shared", "critic", ["actor.features_extractor"], ["actor.optimizer"]),
        ("TD3-shared", "critic", ["actor.features_extractor"], ["critic.optimizer"]),
        ("TD3-shared", "actor", ["actor.features_extractor"], ["actor.optimizer"]),
    ],
)
def test_which_encoder_and_whose_optimizer(name, role, encoder, optimizer):
    model = HOSTS[name].make()
    optimizers = find_optimizers(model)
    holders = {"policy.optimizer": model.policy, "actor.optimizer": getattr(model.policy, "actor", None)}
    holders["critic.optimizer"] = getattr(model.policy, "critic", None)
    found = choose_encoders(model, role)
    assert [host.names[0] for host, _ in found] == encoder
    assert [joined is holders[owner].optimizer for (_, joined), owner in zip(found, optimizer, strict=True)] == (
        [True] * len(found)
    )
    assert all(any(joined is known for known in optimizers.values()) for _, joined in found)


def test_targets_are_not_encoders():
    for name in ("DQN", "SAC", "TD3", "TQC"):
        assert not [names for names, *_ in find_encoders(HOSTS[name].make()) if any("target" in one for one in names)]


# --- what is refused ------------------------------------------------------------------------------------------


def test_an_encoder_without_parameters_names_the_mend():
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16)
    with pytest.raises(
        ValueError, match=r"found FlattenExtractor at policy\.features_extractor on PPO; .*vector_encoder\(\)"
    ):
        model.learn(16, callback=ContrastiveAuxiliary())


def test_a_gradient_free_algorithm_is_refused():
    model = sb3_contrib.ARS("LinearPolicy", "CartPole-v1", n_delta=1)
    with pytest.raises(ValueError, match="needs an algorithm that steps a torch optimizer, found none on ARS"):
        model.learn(100, callback=ContrastiveAuxiliary())


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"weight": -1.0}, "weight must be a number >= 0, got -1.0"),
        ({"weight": float("nan")}, "weight must be a finite number >= 0, got nan"),
        ({"weight": float("inf")}, "weight must be a finite number >= 0, got inf"),
        ({"weight": "1"}, "weight must be a number >= 0, got '1'"),
        ({"weight": True}, "weight must be a number >= 0, got True"),
        ({"objective": "crul"}, "unknown preset 'crul': did you mean curl"),
        ({"objective": {"module": {}}}, "must be a preset's name, a config with the keys source and module"),
        ({"mode": "both"}, "unknown mode 'both'"),
        ({"encoder": "value"}, "unknown encoder 'value'"),
        ({"every": 0}, "every must be a whole number >= 1, got 0"),
        ({"k": -1}, "k must be a whole number >= 0, got -1"),
        ({"k": 1.5}, "k must be a whole number >= 0, got 1.5"),
        ({"batch_size": 1}, "batch_size must be a whole number >= 2, got 1"),
        ({"learning_rate": 0}, "learning_rate must be a number > 0, got 0"),
        ({"max_grad_norm": 0}, "max_grad_norm must be a number > 0, got 0"),
    ],
)
def test_bad_values_get_one_sentence(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        ContrastiveAuxiliary(**kwargs)


def test_a_k_longer_than_the_episodes_seen_names_the_option():
    model = HOSTS["PPO"].make()
    with pytest.raises(ValueError, match=r"got k=400, while the longest of them has \d+ steps; pass a smaller k"):
        model.learn(400, callback=ContrastiveAuxiliary("temporal", k=400))


def test_an_encoder_that_is_not_there_lists_those_that_are():
    model = HOSTS["SAC"].make()
    for name, parameter in model.policy.critic.named_parameters():
        if "features_extractor" in name:
            parameter.requires_grad_(False)
    with pytest.raises(ValueError, match=r"encoder='critic' names no trained encoder of SAC, found policy\.actor"):
        model.learn(100, callback=ContrastiveAuxiliary())


def test_one_callback_serves_one_model():
    auxiliary = ContrastiveAuxiliary(batch_size=16)
    HOSTS["PPO"].make().learn(64, callback=auxiliary)
    with pytest.raises(ValueError, match="serves one model, got a second PPO: make a new one"):
        HOSTS["PPO"].make().learn(64, callback=auxiliary)


def test_query_and_key_that_would_be_the_same_are_refused():
    model = HOSTS["PPO"].make()
    objective = preset("curl", "source.views.vector=null")
    with pytest.raises(
        ValueError, match="query and key must differ: got k=0 and no view for observations of kind vector"
    ):
        model.learn(64, callback=ContrastiveAuxiliary(objective))


def test_the_features_must_have_the_dimension_the_objective_was_built_for():
    model = HOSTS["PPO"].make()
    with pytest.raises(ValueError, match="features have dimension 16, the objective was built for 32"):
        model.learn(64, callback=ContrastiveAuxiliary(Contrastive(32), batch_size=16))


# --- what works -----------------------------------------------------------------------------------------------


class Keep(KVWriter):
    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append(dict(key_values))


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_metrics_reach_the_models_logger(name):
    host, keep = HOSTS[name], Keep()
    model = host.make()
    model.set_logger(Logger(None, [keep]))
    model.learn(900, callback=ContrastiveAuxiliary(batch_size=16), log_interval=1)
    expected = {"loss", "accuracy", "mutual_information", "positive_similarity", "negative_similarity", "gradient_norm"}
    logged = [row for row in keep.rows if "auxiliary/loss" in row]
    assert {f"auxiliary/{metric}" for metric in expected} | {"auxiliary/updates"} <= set(logged[-1])
    assert all(0 <= row["auxiliary/accuracy"] <= 1 for row in logged)
    assert all(row["auxiliary/mutual_information"] <= np.log(16) + 1e-5 for row in logged)
    assert logged[-1]["auxiliary/updates"] > logged[0]["auxiliary/updates"]


def test_several_encoders_are_logged_by_name():
    keep = Keep()
    model = HOSTS["SAC"].make()
    model.set_logger(Logger(None, [keep]))
    model.learn(900, callback=ContrastiveAuxiliary(batch_size=16, encoder="all"), log_interval=1)
    for role in ("actor", "critic"):
        assert f"auxiliary/{role}.features_extractor/loss" in set().union(*keep.rows)


def test_an_objective_module_works_as_it_is():
    auxiliary = ContrastiveAuxiliary(Contrastive(16), batch_size=16, encoder="all")
    HOSTS["SAC"].make().learn(160, callback=auxiliary)
    first, second = (step.objective for step in auxiliary.steps.values())
    assert auxiliary.updates > 0
    assert first is not second
    with pytest.raises(ValueError, match="made from an objective module, whose code is not saved"):
        auxiliary.save("model")
        ContrastiveAuxiliary.load("model")
    assert ContrastiveAuxiliary.load("model", objective=Contrastive(16)).encoder == "all"


def test_batch_size_follows_the_model():
    auxiliary = ContrastiveAuxiliary()
    HOSTS["PPO"].make(batch_size=32).learn(64, callback=auxiliary)
    assert next(iter(auxiliary.steps.values())).settings.batch_size == 32


def pixels(algorithm, env="contraux-tests/Ball-v0", n_stack=1, policy="CnnPolicy", n_envs=2, **kwargs):
    venv = make_vec_env(env, n_envs=n_envs, seed=0)
    venv = VecFrameStack(venv, n_stack) if n_stack > 1 else venv
    return algorithm(policy, venv, seed=0, device="cpu", **kwargs)


ON = {"n_steps": 32, "batch_size": 16, "n_epochs": 1}
OFF = {"learning_starts": 20, "buffer_size": 400, "batch_size": 16, "train_freq": 16, "gradient_steps": 2}


@pytest.mark.parametrize("objective", ["curl", "atc", "temporal"])
@pytest.mark.parametrize(("algorithm", "kwargs"), [(PPO, ON), (DQN, OFF)])
@pytest.mark.parametrize("n_stack", [1, 3])
def test_presets_work_from_pixels_single_and_stacked(objective, algorithm, kwargs, n_stack):
    auxiliary = ContrastiveAuxiliary(objective, batch_size=16)
    model = pixels(algorithm, n_stack=n_stack, **kwargs)
    before = [parameter.clone() for parameter in find_encoders(model)[0].module.parameters()]
    model.learn(96, callback=auxiliary)
    assert auxiliary.updates > 0
    after = find_encoders(model)[0].module.parameters()
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    if algorithm is PPO:
        assert isinstance(auxiliary.store, RingBuffer)
        assert auxiliary.store.frames[""].dtype == np.uint8
        assert auxiliary.store.frames[""].shape[2] == 1  # one channel a row, whatever the stack
    else:
        assert isinstance(auxiliary.store, ReplayRows)


@pytest.mark.parametrize(("algorithm", "kwargs"), [(PPO, ON), (DQN, OFF)])
def test_dict_observations_with_image_and_vector(algorithm, kwargs):
    auxiliary = ContrastiveAuxiliary("curl", batch_size=16)
    pixels(algorithm, "contraux-tests/BallWithState-v0", policy="MultiInputPolicy", **kwargs).learn(
        96, callback=auxiliary
    )
    assert auxiliary.updates > 0


def test_vector_encoder_joins_the_leaves_of_a_dict():
    space = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Discrete(4)})
    encoder = VectorEncoder(space, hidden=(8,), features_dim=5)
    assert encoder({"a": torch.zeros(7, 3), "b": torch.zeros(7, 4)}).shape == (7, 5)


def test_vec_normalize_on_and_off_policy():
    for algorithm, kwargs in ((PPO, ON), (SAC, OFF)):
        env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2, seed=0))
        auxiliary = ContrastiveAuxiliary(batch_size=16)
        algorithm("MlpPolicy", env, seed=0, policy_kwargs=vector_encoder(), **kwargs).learn(96, callback=auxiliary)
        assert auxiliary.updates > 0


@pytest.mark.parametrize("env", ["FrozenLake-v1"])
def test_discrete_observations(env):
    for algorithm, kwargs in ((PPO, ON), (DQN, OFF)):
        auxiliary = ContrastiveAuxiliary(batch_size=16, k=1)
        model = algorithm("MlpPolicy", make_vec_env(env, n_envs=2), seed=0, policy_kwargs=vector_encoder(), **kwargs)
        model.learn(96, callback=auxiliary)
        assert auxiliary.updates > 0


def test_running_statistics_and_dropout_of_the_encoder_are_left_alone():
    class Noisy(VectorEncoder):
        def __init__(self, observation_space):
            super().__init__(observation_space)
            self.mlp.layers.append(nn.BatchNorm1d(64))
            self.mlp.layers.append(nn.Dropout(0.5))

    def train(callback):
        env = make_vec_env("CartPole-v1", n_envs=2, seed=0)
        model = PPO("MlpPolicy", env, seed=0, policy_kwargs={"features_extractor_class": Noisy}, **ON)
        return model.learn(128, callback=callback).policy.state_dict()

    plain, watched = train(None), train(ContrastiveAuxiliary(weight=0, batch_size=16))
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())


def test_an_augmentation_changes_what_the_host_learns_from_and_not_what_the_auxiliary_does():
    def train(callbacks):
        return pixels(PPO, **ON).learn(64, callback=callbacks).policy.state_dict()

    def augmentation():
        return ObservationAugmentation({"image": RandomShift(2)})

    plain, augmented = train([]), train([augmentation()])
    assert any(not torch.equal(value, augmented[name]) for name, value in plain.items())
    watched = train([augmentation(), ContrastiveAuxiliary("curl", weight=0, batch_size=16)])
    assert all(torch.equal(value, watched[name]) for name, value in augmented.items())


def test_an_augmentation_that_would_change_nothing_is_refused():
    with pytest.raises(ValueError, match=r"views must change at least one kind of observation among \['vector'\]"):
        HOSTS["PPO"].make().learn(64, callback=ObservationAugmentation({"image": RandomShift(2)}))


def test_plain_sb3_loads_and_saves_a_model_that_met_an_auxiliary():
    model = HOSTS["PPO"].make().learn(64, callback=ContrastiveAuxiliary(batch_size=16))
    model.save("model")
    loaded = stable_baselines3.PPO.load("model")
    assert type(loaded) is stable_baselines3.PPO
    assert "_watch" not in vars(model)
    for name, value in model.policy.state_dict().items():
        assert torch.equal(value, loaded.policy.state_dict()[name])


def test_two_runs_with_one_seed_are_the_same_and_other_seeds_differ():
    def train(seed):
        model = HOSTS["PPO"].make().learn(96, callback=ContrastiveAuxiliary(batch_size=16, seed=seed))
        return torch.cat([value.flatten() for value in model.policy.state_dict().values()])

    assert torch.equal(train(5), train(5))
    assert not torch.equal(train(5), train(6))


class Truncate(BaseCallback):
    def _on_step(self):
        return self.num_timesteps < 40


def test_learn_stopped_by_another_callback_and_continued():
    auxiliary = ContrastiveAuxiliary(batch_size=16)
    model = HOSTS["SAC"].make()
    model.learn(160, callback=[auxiliary, Truncate()])
    model.learn(160, callback=auxiliary, reset_num_timesteps=False)
    assert auxiliary.updates > 0
