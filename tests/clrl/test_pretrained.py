"""A pretrained encoder inside Stable-Baselines3: what learns, how fast, what is saved, and which observations fit."""

import copy
import io
import json
import pickle
import zipfile
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
from gymnasium import spaces
from sb3_hosts import HOSTS
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import NatureCNN as TheirNatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack
from torch import nn

from contraux.clrl import ContrastiveAuxiliary, pretrained_encoder
from contraux.clrl.slow import SCALE, SlowOptimizer, slow_down
from contraux.core.encoders import MLP, NatureCNN, PretrainedEncoder, SmallCNN, describe

MLP_8 = partial(MLP, hidden=[8], out=6, activation="tanh")
CNN = partial(SmallCNN, width=8)
LENGTH = {"CartPole-v1": 4, "contraux-tests/MaskedCartPole-v0": 4, "Pendulum-v1": 3}


def made(factory=MLP_8, shape=(4,), seed=0):
    torch.manual_seed(seed)
    statistics = [0.25] * shape[0], [0.5] * shape[0]
    encoder = PretrainedEncoder(factory(shape), shape, *statistics, describe(factory), {"method": "simclr"})
    encoder(torch.rand(16, *shape))  # moves running statistics
    return encoder.eval()


class Pictures(gym.Env):
    """Random images; one of two actions is right."""

    def __init__(self, shape=(16, 16, 3), dtype=np.uint8, high=255):
        self.observation_space = spaces.Box(0, high, shape, dtype)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 20
        return self._picture(), {}

    def step(self, action):
        self.left -= 1
        return self._picture(), float(action), self.left == 0, False, {}

    def _picture(self):
        space = self.observation_space
        picture = self.np_random.random(space.shape) * space.high.max()
        return picture.astype(space.dtype)


def pictures(n_envs=2, **arguments):
    return DummyVecEnv([lambda: Pictures(**arguments)] * n_envs)


def snapshot(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def extractors(model):
    found = [m for name, m in model.policy.named_modules() if name.endswith("features_extractor")]
    assert found
    return found


# --- what the policy computes -----------------------------------------------------------------------------------------


def test_nature_cnn_is_stable_baselines_weight_for_weight():
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    torch.manual_seed(3)
    theirs = TheirNatureCNN(space)
    torch.manual_seed(3)
    ours = NatureCNN((4, 84, 84))
    mine, others = ours.state_dict(), theirs.state_dict()
    assert [tuple(v.shape) for v in mine.values()] == [tuple(v.shape) for v in others.values()]
    assert all(torch.equal(a, b) for a, b in zip(mine.values(), others.values(), strict=True))
    x = torch.rand(3, 4, 84, 84)
    assert torch.equal(ours(x), theirs(x))
    assert ours.out_features == theirs.features_dim == 512


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("mode", ["frozen", "slow"])
def test_every_algorithm_begins_with_the_pretrained_weights_and_learns(name, mode):
    host = HOSTS[name]
    encoder = made(shape=(LENGTH[host.env],))
    kwargs = pretrained_encoder(encoder, mode, **host.policy_kwargs)
    before = snapshot(encoder)
    model = host.make(policy_kwargs=kwargs)
    for extractor in extractors(model):  # also after PPO's orthogonal initialisation
        assert same(snapshot(extractor.encoder), before)
    model.learn(64)
    moved = [not same(snapshot(extractor.encoder), before) for extractor in extractors(model)]
    assert any(moved) == (mode != "frozen")
    assert same(snapshot(encoder), before)  # each model trains its own copy


@pytest.mark.parametrize("normalize", [True, False])
def test_images_of_the_host_get_the_features_of_pretraining(normalize):
    encoder = made(CNN, (3, 16, 16))
    env = pictures()
    model = PPO("CnnPolicy", env, n_steps=32, policy_kwargs=pretrained_encoder(encoder, normalize_images=normalize))
    observations = env.reset()  # (N, H, W, C), as the environment has them
    expected = encoder(torch.as_tensor(observations).permute(0, 3, 1, 2))
    model.policy.set_training_mode(False)
    seen = model.policy.extract_features(model.policy.obs_to_tensor(observations)[0])
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)


def test_vectors_one_hot_and_float_images():
    encoder = made(shape=(5,))
    space = spaces.Discrete(5)
    extractor = PPO("MlpPolicy", DummyVecEnv([lambda: OneOf(5)]), policy_kwargs=pretrained_encoder(encoder)).policy
    observation = torch.tensor([2, 4])
    expected = encoder(torch.eye(5)[observation])
    assert space.contains(2) and torch.equal(extractor.extract_features(observation), expected)
    floats = pictures(shape=(3, 16, 16), dtype=np.float32, high=1)
    encoder = made(CNN, (3, 16, 16))
    policy = PPO("CnnPolicy", floats, policy_kwargs={**pretrained_encoder(encoder, normalize_images=False)}).policy
    x = torch.rand(2, 3, 16, 16)
    policy.set_training_mode(False)
    assert torch.equal(policy.extract_features(x), encoder(x))


class OneOf(gym.Env):
    def __init__(self, n):
        self.observation_space, self.action_space = spaces.Discrete(n), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return 0, 0.0, False, False, {}


def test_stacked_frames_are_channels():
    encoder = made(CNN, (6, 16, 16))
    stacked = VecFrameStack(pictures(), 2)  # (16, 16, 6) before Stable-Baselines3 puts channels first
    model = DQN("CnnPolicy", stacked, policy_kwargs=pretrained_encoder(encoder), buffer_size=100, learning_starts=10)
    model.learn(40)


# --- frozen -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [PPO, DQN, sb3_contrib.TRPO])
def test_frozen_means_weights_and_running_statistics(algorithm):
    encoder = made(CNN, (3, 16, 16))
    small = {"n_steps": 16, "batch_size": 8} if algorithm is not DQN else {"learning_starts": 8, "buffer_size": 100}
    model = algorithm("CnnPolicy", pictures(), policy_kwargs=pretrained_encoder(encoder, "frozen"), **small)
    model.policy.set_training_mode(True)
    assert not any(part.training for extractor in extractors(model) for part in extractor.encoder.modules())
    owned = {id(p) for group in model.policy.optimizer.param_groups for p in group["params"]}
    weights = [value for extractor in extractors(model) for value in extractor.parameters()]
    assert weights and not owned & {id(value) for value in weights}
    assert not any("encoder" in name for name, _ in model.policy.named_parameters())
    model.learn(96)
    for extractor in extractors(model):
        assert same(snapshot(extractor.encoder), snapshot(encoder))
        assert not extractor(torch.rand(2, 3, 16, 16)).requires_grad


def test_finetuned_running_statistics_do_move():
    encoder = made(CNN, (3, 16, 16))
    model = PPO("CnnPolicy", pictures(), n_steps=16, batch_size=8, policy_kwargs=pretrained_encoder(encoder)).learn(32)
    mean = "encoder.layers.1.running_mean"
    assert not torch.equal(snapshot(model.policy.features_extractor.encoder)[mean], snapshot(encoder)[mean])


# --- slow -------------------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "Adam": (torch.optim.Adam, {}),
    "AdamW": (torch.optim.AdamW, {"weight_decay": 0.1}),
    "SGD": (torch.optim.SGD, {"momentum": 0.9}),
    "RMSprop": (torch.optim.RMSprop, {}),
    "Adagrad": (torch.optim.Adagrad, {"lr_decay": 0.1}),
}


@pytest.mark.parametrize(("optimizer", "kwargs"), OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_slow_equals_the_optimizer_itself_with_a_smaller_rate(optimizer, kwargs):
    torch.manual_seed(0)
    body, head = nn.Linear(3, 4), nn.Linear(4, 1)
    twin_body, twin_head = copy.deepcopy(body), copy.deepcopy(head)
    slow_down(body, 0.125)
    slow = SlowOptimizer(optimizer)([*body.parameters(), *head.parameters()], lr=0.3, **kwargs)
    assert isinstance(slow, optimizer)
    apart = [optimizer(twin_body.parameters(), lr=0.3, **kwargs), optimizer(twin_head.parameters(), lr=0.3, **kwargs)]
    for rate in (0.2, 0.1, 0.05):
        x = torch.randn(5, 3)
        for one, other in ((body, head), (twin_body, twin_head)):
            for part in (one, other):
                part.zero_grad()
            other(torch.tanh(one(x))).square().sum().backward()
        for group in slow.param_groups:  # as Stable-Baselines3 does before each update
            group["lr"] = rate
        slow.step()
        assert {group["lr"] for group in slow.param_groups} == {rate}
        for twin, scale in zip(apart, (0.125, 1.0), strict=True):
            twin.param_groups[0]["lr"] = rate * scale
            twin.step()
    for one, other in ((body, twin_body), (head, twin_head)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_hooks_run_once_a_step_and_the_rate_comes_back_after_an_error():
    for _ in range(2):  # the second time torch has wrapped the class already
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        parameter = nn.Parameter(torch.zeros(1))
        setattr(parameter, SCALE, 0.5)
        slow = SlowOptimizer(torch.optim.SGD)([parameter, nn.Parameter(torch.zeros(1))], lr=1.0)
        calls = []
        slow.register_step_pre_hook(lambda *_, calls=calls: calls.append("before"))
        slow.register_step_post_hook(lambda *_, calls=calls: calls.append("after"))
        parameter.grad = torch.ones(1)
        slow.step()
        assert calls == ["before", "after"] and parameter.item() == -0.5
        with pytest.raises(RuntimeError):
            slow.step(lambda: (_ for _ in ()).throw(RuntimeError("in the closure")))
        assert [group["lr"] for group in slow.param_groups] == [1.0, 1.0]
        twin = copy.deepcopy(slow)
        twin.param_groups[1]["params"][0].grad = torch.ones(1)
        twin.step()
        assert twin.param_groups[1]["params"][0].item() == -1.0  # -0.5 - 0.5 * 1


def first_step(algorithm, env, kwargs, **settings):
    """The policy's parameters before and after the first step of one optimizer, whose name ends in encoder or not."""
    model = algorithm("MlpPolicy", env, seed=0, policy_kwargs=kwargs, device="cpu", **settings)
    policy = model.policy
    holder = {"PPO": policy, "A2C": policy, "DQN": policy, "SAC": getattr(policy, "critic", None)}[algorithm.__name__]
    names = {id(parameter): name for name, parameter in policy.named_parameters()}
    moves = {}

    def before(optimizer, *_):
        if not moves:
            moves.update({names[id(p)]: p.detach().clone() for g in optimizer.param_groups for p in g["params"]})

    def after(optimizer, *_):
        for group in optimizer.param_groups:
            for p in group["params"]:
                if names[id(p)] in moves and names[id(p)] not in done:
                    done[names[id(p)]] = p.detach() - moves[names[id(p)]]

    done = {}
    holder.optimizer.register_step_pre_hook(before)
    holder.optimizer.register_step_post_hook(after)
    model.learn(settings.get("learning_starts", 0) + 64)
    assert done
    return done


ON = {"n_steps": 32, "batch_size": 32}
OFF = {"learning_starts": 20, "buffer_size": 200, "batch_size": 16, "train_freq": 4}


@pytest.mark.parametrize(
    ("algorithm", "env", "settings", "extra"),
    [
        (PPO, "CartPole-v1", ON, {}),
        (PPO, "CartPole-v1", {**ON, "learning_rate": lambda left: 1e-3 * left}, {"share_features_extractor": False}),
        (PPO, "CartPole-v1", ON, {"optimizer_class": torch.optim.SGD}),
        (DQN, "CartPole-v1", OFF, {}),
        (SAC, "Pendulum-v1", OFF, {}),
        (
            A2C,
            "CartPole-v1",
            {"n_steps": 16},
            {"optimizer_class": torch.optim.RMSprop, "optimizer_kwargs": {"eps": 1e-5}},
        ),
    ],
)
def test_the_first_step_is_that_of_finetuning_with_the_encoders_part_scaled(algorithm, env, settings, extra):
    encoder = made(shape=(LENGTH[env],))
    steps = [
        first_step(algorithm, make_vec_env(env, 1, seed=0), pretrained_encoder(encoder, mode, 0.1, **extra), **settings)
        for mode in ("finetune", "slow")
    ]
    whole, slow = steps
    assert whole.keys() == slow.keys()
    assert any("encoder" in name for name in whole) and not all("encoder" in name for name in whole)
    for name, step in whole.items():
        scale = 0.1 if ".encoder." in name else 1.0
        torch.testing.assert_close(slow[name], scale * step, rtol=2e-2, atol=2e-8)  # differences of float32 numbers
        if ".encoder." in name:
            assert step.abs().max() > 1e-6


def test_policies_find_their_optimizer_where_the_slow_one_stands():
    slow = SlowOptimizer(torch.optim.Adam)
    assert slow == torch.optim.Adam != SlowOptimizer(torch.optim.SGD) and slow in [torch.optim.Adam]
    assert hash(slow) == hash(torch.optim.Adam) and str(slow) == "SlowOptimizer(Adam)"
    env = make_vec_env("CartPole-v1", 1)
    eps = [
        PPO("MlpPolicy", env, policy_kwargs=pretrained_encoder(made(), mode)).policy.optimizer.defaults["eps"]
        for mode in ("finetune", "slow")
    ]
    assert eps == [1e-5, 1e-5]


def test_targets_follow_as_ever():
    encoder = made(shape=(3,))
    settings = {**HOSTS["SAC"].kwargs, "tau": 1.0}
    model = HOSTS["SAC"].make(policy_kwargs=pretrained_encoder(encoder, "slow"), **settings).learn(64)
    online, target = (getattr(model.policy, name).features_extractor for name in ("critic", "critic_target"))
    assert same(snapshot(online), snapshot(target)) and not same(snapshot(online.encoder), snapshot(encoder))


# --- save and load ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PPO-separate", "DQN", "SAC"])
@pytest.mark.parametrize("mode", ["finetune", "frozen", "slow"])
def test_a_saved_model_needs_no_checkpoint(name, mode, tmp_path):
    host = HOSTS[name]
    folder = tmp_path / "somewhere" / "encoder"
    made(shape=(LENGTH[host.env],)).save_pretrained(folder)
    model = host.make(policy_kwargs=pretrained_encoder(folder, mode, **host.policy_kwargs)).learn(64)
    model.save(tmp_path / "model")
    for file in folder.iterdir():
        file.unlink()
    loaded = host.load(tmp_path / "model")
    assert same(snapshot(loaded.policy), snapshot(model.policy))
    observations = np.random.default_rng(0).normal(size=(5, LENGTH[host.env])).astype(np.float32)
    actions = [m.predict(observations, deterministic=True)[0] for m in (model, loaded)]
    np.testing.assert_array_equal(*actions)
    before = [snapshot(extractor.encoder) for extractor in extractors(loaded)]
    loaded.learn(64, reset_num_timesteps=False)
    unmoved = [same(b, snapshot(e.encoder)) for b, e in zip(before, extractors(loaded), strict=True)]
    assert all(unmoved) if mode == "frozen" else not all(unmoved)
    if mode == "slow":
        holder = loaded.policy.actor if hasattr(loaded.policy, "actor") else loaded.policy
        assert [group[SCALE] for group in holder.optimizer.param_groups] == [1.0, 0.1]
    loaded.save(tmp_path / "again")  # what came out of a file goes into one


def test_the_saved_arguments_hold_no_weights_and_no_place(tmp_path):
    encoder = made(partial(MLP, hidden=[300, 300], out=6))
    encoder.save_pretrained(tmp_path / "secret_place")
    kwargs = pretrained_encoder(tmp_path / "secret_place", "slow")
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 1), policy_kwargs=kwargs)
    model.save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        data = archive.read("data").decode()
    assert len(json.loads(data)["policy_kwargs"][":serialized:"]) < 4000  # the weights are 370 kB
    assert "secret_place" not in data


def test_a_policy_alone_is_saved_and_loaded(tmp_path):
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 1), policy_kwargs=pretrained_encoder(made(), "frozen"))
    model.policy.save(tmp_path / "policy.pt")
    loaded = type(model.policy).load(tmp_path / "policy.pt")
    assert same(snapshot(loaded), snapshot(model.policy))
    loaded.predict(np.zeros(4, np.float32))


def test_pickled_arguments_do_not_make_a_policy_of_random_weights():
    kwargs = pretrained_encoder(made())
    env = make_vec_env("CartPole-v1", 1)
    copied = PPO("MlpPolicy", env, policy_kwargs=copy.deepcopy(kwargs))
    assert same(snapshot(copied.policy.features_extractor.encoder), snapshot(made()))
    for algorithm in (PPO, DQN):
        pickled = algorithm("MlpPolicy", env, policy_kwargs=pickle.loads(pickle.dumps(kwargs)))
        with pytest.raises(ValueError, match=r"pickled without its weights.*call pretrained_encoder anew"):
            pickled.predict(np.zeros((1, 4), np.float32))


class Own(nn.Module):
    out_features = 3

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x)


def test_an_encoder_of_ones_own_travels_with_the_model():
    encoder = PretrainedEncoder(Own(), (4,), [0.0] * 4, [1.0] * 4)
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 1), n_steps=64, policy_kwargs=pretrained_encoder(encoder))
    model.learn(64)
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    loaded = PPO.load(file)
    assert same(snapshot(loaded.policy), snapshot(model.policy))
    loaded.predict(np.zeros(4, np.float32))


# --- with an auxiliary ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["finetune", "slow"])
@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_an_auxiliary_joins_it(name, mode):
    host = HOSTS[name]
    kwargs = pretrained_encoder(made(shape=(LENGTH[host.env],)), mode)
    weights = {}
    for weight in (None, 0.0, 1.0):
        model = host.make(policy_kwargs=kwargs)
        auxiliary = None if weight is None else ContrastiveAuxiliary("temporal", weight=weight, batch_size=8)
        model.learn(64, callback=auxiliary)
        weights[weight] = snapshot(model.policy)
        assert auxiliary is None or auxiliary.updates > 0
    assert same(weights[None], weights[0.0]) and not same(weights[0.0], weights[1.0])


def test_an_auxiliary_cannot_train_a_frozen_one():
    model = HOSTS["PPO"].make(policy_kwargs=pretrained_encoder(made(), "frozen"))
    sentence = "found frozen ones only: PretrainedExtractor at policy.features_extractor"
    with pytest.raises(ValueError, match=sentence):
        model.learn(10, callback=ContrastiveAuxiliary("temporal"))


# --- sentences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "env", "sentence"),
    [
        (
            lambda: made(CNN, (1, 16, 16)),
            lambda: pictures(),
            r"trained on inputs \(1, 16, 16\), but observations are \(3, 16, 16\): 3 channels, stacked frames included",
        ),
        (
            lambda: made(CNN, (3, 16, 16)),
            lambda: VecFrameStack(pictures(), 4),
            r"trained on inputs \(3, 16, 16\), but observations are \(12, 16, 16\): 12 channels",
        ),
        (
            lambda: made(CNN, (3, 32, 32)),
            lambda: pictures(),
            r"trained on inputs \(3, 32, 32\), but observations are \(3, 16, 16\)$",
        ),
        (
            lambda: made(CNN, (3, 16, 16)),
            lambda: pictures(dtype=np.float32, high=1),
            r"are \(16, 16, 3\), with channels last, which Stable-Baselines3 changes for uint8 images only$",
        ),
        (
            lambda: made(CNN, (3, 16, 16)),
            lambda: pictures(shape=(3, 16, 16), dtype=np.float32, high=255),
            r"uint8 in \[0, 255\] or floats in \[0, 1\], but observations are float32 in \[0.0, 255.0\]",
        ),
        (
            lambda: made(shape=(7,)),
            lambda: make_vec_env("CartPole-v1", 1),
            r"trained on inputs \(7,\), but observations are \(4,\)$",
        ),
        (
            lambda: made(CNN, (3, 16, 16)),
            lambda: make_vec_env("CartPole-v1", 1),
            r"trained on inputs \(3, 16, 16\), but observations are \(4,\)$",
        ),
        (
            lambda: made(shape=(4,)),
            lambda: pictures(),
            r"trained on inputs \(4,\), but observations are \(3, 16, 16\)$",
        ),
    ],
)
def test_observations_that_do_not_fit(encoder, env, sentence):
    kwargs = pretrained_encoder(encoder(), normalize_images=False)
    with pytest.raises(ValueError, match=sentence):
        stable_baselines3.PPO("MlpPolicy", env(), policy_kwargs=kwargs)


def test_dict_observations_are_refused():
    space = spaces.Dict({"a": spaces.Box(0, 1, (4,))})
    kwargs = pretrained_encoder(made())
    with pytest.raises(ValueError, match="a pretrained encoder reads one array, got observations Dict"):
        kwargs["features_extractor_class"](space, **kwargs["features_extractor_kwargs"])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: pretrained_encoder(made(), "forzen"), "unknown mode 'forzen': did you mean frozen"),
        (lambda: pretrained_encoder(made(), "slow", 0.0), r"learning_rate_scale must be a number in \(0, 1\], got 0.0"),
        (lambda: pretrained_encoder(made(), learning_rate_scale=2), r"must be a number in \(0, 1\], got 2"),
        (
            lambda: pretrained_encoder(made(), features_extractor_class=TheirNatureCNN),
            "a pretrained encoder is the features extractor, got features_extractor_class for the policy too",
        ),
        (lambda: pretrained_encoder("./nowhere"), "there is no folder './nowhere'"),
        (
            lambda: pretrained_encoder(made().requires_grad_(False), "slow"),
            "mode=slow trains the encoder, got one whose",
        ),
    ],
)
def test_wrong_arguments(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
