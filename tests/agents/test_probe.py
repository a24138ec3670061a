"""Probes against scikit-learn and by hand; splits without leaks; encoders before their ReLU; frames with their RAM."""

import functools
import math
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, r2_score
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

import contraux
from contraux.agents import ContrastivePPO
from contraux.agents.checkpoint import save_checkpoint
from contraux.agents.environments import make
from contraux.agents.probe import Probe, Splits, games, ram_variables, record, split, varying
from contraux.agents.probe.arms import read_arms
from contraux.agents.probe.networks import BeforeFinalReLU, Pixels, untrained
from contraux.agents.probe.probe import classes, classified, standardise, whiten
from contraux.agents.probe.ridge import r2, ridge
from contraux.agents.probe.saved import load, load_policy
from contraux.agents.probe.softmax import fit_softmax
from contraux.agents.probe.train import Supervised, Training
from contraux.agents.probe.variables import Variable, game_of, vector_variables
from contraux.clrl import pretrained_encoder, vector_encoder
from contraux.core.encoders import MLP, PretrainedEncoder
from contraux.core.preset import preset, presets

atari = functools.partial(make, n_envs=2, kwargs={"frameskip": 1}, frame_stack=4, atari=True)


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# --- the two probes ---------------------------------------------------------------------------------------------------


def test_several_classifiers_are_scikit_learns_each():
    features = numbers(0, 300, 6).astype(float)
    scores = features @ numbers(1, 6, 5) + 0.5 * numbers(2, 300, 5)
    labels = np.stack([scores.argmax(1), (scores[:, 0] > 0).astype(int), scores[:, :3].argmax(1)], 1)
    found = fit_softmax(torch.tensor(features), torch.tensor(labels), (5, 2, 3), c=0.3, max_iter=2000, tolerance=1e-6)
    assert found.converged.all() and found.iterations < 2000
    other = numbers(3, 200, 6).astype(float)
    predicted = found.predict(torch.tensor(other)).numpy()
    for v, weights in enumerate(found.weights.split(found.sizes, 1)):
        ours = torch.softmax(torch.tensor(other) @ weights + found.bias.split(found.sizes)[v], 1).numpy()
        # Of two classes scikit-learn has one vector w = w_1 - w_0, and |w|^2 / 2 = |w_0|^2 + |w_1|^2.
        peer = LogisticRegression(C=0.6 if v == 1 else 0.3, tol=1e-8, max_iter=5000).fit(features, labels[:, v])
        np.testing.assert_allclose(ours, peer.predict_proba(other), atol=1e-4)
        assert (predicted[:, v] == peer.predict(other)).mean() > 0.99


def test_a_classifier_that_was_stopped_says_so_and_a_warm_start_ends_in_the_same_place():
    features, labels = torch.tensor(numbers(0, 200, 8)).double(), torch.tensor(np.arange(200)[:, None] % 4)
    stopped = fit_softmax(features, labels, (4,), c=10.0, max_iter=2)
    assert not stopped.converged.any()
    cold = fit_softmax(features, labels, (4,), c=10.0, max_iter=1000, tolerance=1e-6)
    warm = fit_softmax(features, labels, (4,), c=10.0, max_iter=1000, tolerance=1e-6, start=stopped)
    assert cold.converged.all() and warm.converged.all()
    torch.testing.assert_close(cold.weights, warm.weights, atol=1e-3, rtol=0)


@pytest.mark.parametrize("alpha", [0.5, 30.0])
def test_ridge_is_scikit_learns_within_the_range_of_its_labels(alpha):
    features, other = numbers(0, 100, 7), 2 * numbers(1, 60, 7)
    labels = features @ numbers(2, 7, 3) + numbers(3, 100, 3) + 40
    _, found = ridge(features, labels, [other], [1e4, alpha])[0]
    peer = Ridge(alpha=alpha).fit(features.astype(float), labels.astype(float)).predict(other.astype(float))
    np.testing.assert_allclose(found, peer.clip(labels.min(0), labels.max(0)), atol=1e-6)
    assert (peer < labels.min(0)).any() and (peer > labels.max(0)).any(), "the range must matter somewhere"


def test_a_feature_that_training_does_not_know_cannot_throw_a_prediction_out_of_range():
    features, labels = numbers(0, 50, 2), np.linspace(0, 10, 50)[:, None]
    features[:, 1] *= 1e-3
    other = np.array([[0.0, 1e6]], np.float32)
    assert 0 <= ridge(features, labels, [other], [1e-6])[0][0, 0, 0] <= 10


def test_r2_by_hand_and_as_scikit_learn():
    truth = np.array([[1.0, 2, 5], [3, 2, 6], [5, 2, 10]])
    guess = np.array([[1.0, 2, 7], [3, 2, 7], [3, 2, 7]])
    found = r2(truth, guess)
    assert found[0] == 1 - 4 / 8 and math.isnan(found[1])
    assert found[0] == r2_score(truth[:, 0], guess[:, 0]) and found[2] == pytest.approx(
        r2_score(truth[:, 2], guess[:, 2])
    )


def test_macro_f1_counts_every_value_alike_and_weighted_by_frequency():
    truth, guess = np.array([0, 0, 0, 0, 0, 0, 7, 7]), np.array([0, 0, 0, 0, 0, 0, 0, 9])
    # value 0: precision 6/7, recall 1, F1 12/13; value 7: never found, 0; value 9: never true, 0
    found = classified(truth, guess)
    assert found["macro_f1"] == pytest.approx(12 / 13 / 3) == pytest.approx(f1_score(truth, guess, average="macro"))
    assert found["weighted_f1"] == pytest.approx(12 / 13 * 6 / 8)
    assert found["accuracy"] == 6 / 8


def splits(seed, *, planted, sizes=(600, 200, 300)):
    """Labels of 5 values, and 12 features of noise, of which one is the label where it is planted."""
    random = np.random.default_rng(seed)
    labels = [random.integers(5, size=(size, 1)) * 10 for size in sizes]
    features = [random.standard_normal((size, 12)).astype(np.float32) for size in sizes]
    if planted:
        for own, answer in zip(features, labels, strict=True):
            own[:, 3] = answer[:, 0]
    return Splits(*features), Splits(*labels)


def test_classifiers_find_the_same_after_any_invertible_linear_map():
    """What a trained encoder knows lies in directions of little variance; a penalty on weights must not hide it."""
    features, labels = splits(0, planted=True)
    turn, _ = np.linalg.qr(numbers(9, 12, 12).astype(float))
    scale = np.ones(12)
    scale[3] = 1e-4  # the one that tells
    mapped = Splits(*((own * scale) @ turn + 5 for own in features))
    (one,), (two,) = Probe(c=(0.1, 1.0))(features, labels), Probe(c=(0.1, 1.0))(mapped, labels)
    assert one["accuracy"] > 0.9 and one["converged"] == two["converged"] == 1
    assert two["accuracy"] == pytest.approx(one["accuracy"], abs=0.01)
    assert two["macro_f1"] == pytest.approx(one["macro_f1"], abs=0.01)
    train, _, test = (torch.as_tensor(own, dtype=torch.float32) for own in standardise(mapped))
    penalised = fit_softmax(train, torch.tensor(labels.train // 10), (5,), c=1.0)
    found = (penalised.predict(test).numpy() * 10 == labels.test).mean()
    assert found < 0.5, "a penalty on standardised features hides it"


def test_components_are_of_variance_one_and_rounding_is_none_of_them():
    features = numbers(0, 400, 5) * [1, 10, 100, 0.1, 1] + 3
    features = np.concatenate([features, features[:, :1] - 2 * features[:, 1:2], np.full((400, 1), 7.0)], 1)
    found = whiten(standardise(Splits(features, features[:50], features[50:90])))
    np.testing.assert_allclose(found.train.T @ found.train / 400, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(found.test, found.train[50:90], atol=1e-6)


def test_a_planted_variable_is_found_as_a_number_and_noise_holds_nothing():
    (found,) = Probe()(*splits(0, planted=True))
    assert found["r2"] > 0.999
    (found,) = Probe()(*splits(0, planted=False))
    assert found["macro_f1"] < 0.3 and abs(found["accuracy"] - 0.2) < 0.1 and found["r2"] < 0.05


def test_planted_classes_are_found_exactly():
    features, labels = splits(1, planted=False)
    for own, answer in zip(features, labels, strict=True):
        own[:, :5] = np.eye(5)[answer[:, 0] // 10] + 0.01 * own[:, :5]
    (found,) = Probe()(features, labels)
    assert found["macro_f1"] == found["accuracy"] == 1.0 and found["converged"] == 1.0 and found["r2"] > 0.99


def test_values_that_only_the_test_has_are_mistakes_and_numbers_are_binned():
    features, labels = splits(2, planted=True)
    labels.test[:] = 77
    labels.test[0] = 10
    (found,) = Probe(c=[1.0])(features, labels)
    assert found["accuracy"] <= 1 / 300
    train = np.linspace(0, 1, 1000) ** 2
    binned = classes([train, np.array([-5.0, 0.3, 2.0])], 4)
    assert [(binned[0] == k).sum() for k in range(4)] == [250, 250, 250, 250]
    assert binned[1].tolist() == [0, 2, 3]  # 0.5^2 <= 0.3 < 0.75^2
    kept = classes([np.array([3.0, 9.0, 3.0]), np.array([9.0])], 4)
    assert kept[0].tolist() == [3, 9, 3]


def test_strength_is_chosen_on_validation_not_on_the_test():
    features, labels = splits(3, planted=False, sizes=(60, 400, 400))
    for part in (0, 1, 2):
        features[part][:, 0] = (labels[part][:, 0] > 20) + 0.8 * features[part][:, 0]
    single = {c: Probe(c=[c], tolerance=1e-5)(features, labels)[0] for c in (0.001, 1.0, 100.0)}
    (chosen,) = Probe(c=[100.0, 0.001, 1.0], tolerance=1e-5)(features, labels)
    swapped = Splits(features.train, features.test, features.validation)
    backwards = Splits(labels.train, labels.test, labels.validation)
    on_validation = {c: Probe(c=[c], tolerance=1e-5)(swapped, backwards)[0]["macro_f1"] for c in single}
    assert chosen["c"] == max(on_validation, key=on_validation.get)
    assert chosen["macro_f1"] == pytest.approx(single[chosen["c"]]["macro_f1"], abs=0.01)


def test_features_are_standardised_by_training_and_constants_stay_nothing():
    features = Splits(np.array([[1.0, 5], [3, 5]], np.float32), np.array([[5.0, 6]]), np.array([[2.0, 5]]))
    train, validation, test = standardise(features)
    assert train.tolist() == [[-1, 0], [1, 0]] and validation.tolist() == [[3, 0]] and test.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"c": [0.0]}, "probe.c must be a number > 0, got 0.0"),
        ({"c": 1.0}, "probe.c must be a list of numbers > 0, got 1.0"),
        ({"alphas": []}, "probe.alphas must be a list"),
        ({"bins": 1}, "probe.bins must be a whole number >= 2, got 1"),
    ],
)
def test_the_probe_refuses(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Probe(**wrong)


# --- splits and variables ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 30), min_size=4, max_size=12), st.integers(0, 1000), st.integers(2, 60))
def test_splits_share_no_episode_and_no_frame(lengths, seed, different):
    episodes = np.repeat(np.arange(len(lengths)), lengths)
    frames = np.random.default_rng(seed).integers(different, size=len(episodes))
    try:
        found = split(episodes, lambda i: bytes([frames[i]]), validation=0.15, test=0.25, seed=seed)
    except ValueError as error:
        assert "needs an episode for each" in str(error) or "among the others too" in str(error)
        return
    parts = [found.train, found.validation, found.test]
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            assert not set(episodes[one]) & set(episodes[other])
            assert not set(frames[one]) & set(frames[other])
    assert sum(map(len, parts)) + sum(found.duplicates) == len(episodes)
    assert sum(found.episodes) == len(lengths) and min(found.episodes) >= 1
    in_test = np.isin(episodes, episodes[found.test])
    assert in_test.sum() <= len(found.test) + found.duplicates[1]


def test_shares_are_of_frames_and_duplicates_are_dropped_where_they_are_judged():
    episodes, frames = np.repeat(np.arange(10), 100), np.arange(1000)
    clean = split(episodes, lambda i: str(frames[i]).encode(), seed=0)
    assert clean.episodes == (7, 1, 2) and clean.duplicates == (0, 0)
    teaching, choosing = sorted(set(episodes[clean.train]))[:2], episodes[clean.validation][0]
    judging, other = sorted(set(episodes[clean.test]))
    frames[episodes == judging] = frames[episodes == teaching[0]]  # a whole episode seen in training
    frames[episodes == teaching[1]] = frames[episodes == teaching[0]]
    frames[other * 100 : other * 100 + 30] = frames[episodes == choosing][:30]  # and 30 frames of validation
    found = split(episodes, lambda i: str(frames[i]).encode(), seed=0)
    assert found.duplicates == (0, 130) and found.episodes == clean.episodes
    assert found.test.tolist() == list(range(other * 100 + 30, other * 100 + 100))
    assert len(found.train) == 700, "training keeps its own duplicates"


@pytest.mark.parametrize(
    ("episodes", "shares", "sentence"),
    [
        ([0] * 5 + [1] * 5, {}, "got 2 episodes in 10 frames"),
        ([0, 1, 2], {"test": 0.0}, r"shares.test must be a number in \(0, 1\), got 0.0"),
        ([0, 1, 2], {"test": 0.6, "validation": 0.5}, "shares.validation . shares.test must be"),
    ],
)
def test_a_split_refuses(episodes, shares, sentence):
    with pytest.raises(ValueError, match=sentence):
        split(np.array(episodes), lambda i: str(i).encode(), **shares)


def test_a_test_of_nothing_but_known_frames_is_refused():
    with pytest.raises(ValueError, match=r"all \d frames for (validation|test) are among the others too"):
        split(np.repeat(np.arange(5), 3), lambda i: b"same")


def test_entropy_is_in_nats_and_its_threshold_drops():
    rare = np.array([1] * 90 + [2] * 10)  # 0.325 nats; 0.469 of what two values can have
    half = np.array([0, 1] * 50)  # ln 2 = 0.693 nats
    many = np.arange(100)
    labels = np.stack([rare, half, many, np.full(100, 3)], 1)
    named = [Variable(name, "misc", i) for i, name in enumerate(["rare", "half", "many", "still"])]
    kept = varying(named, labels, labels, 0.6)
    assert kept.columns == [1, 2] and kept.dropped["still"] == 0
    assert kept.dropped["rare"] == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert varying(named, labels, labels, 0.3).columns == [0, 1, 2]
    assert varying(named, labels, labels, 0.0).columns == [0, 1, 2], "what never varies cannot be probed"
    test = labels.copy()
    test[:, 2] = 5
    assert varying(named, labels, test, 0.6).constant == ["many"]
    with pytest.raises(ValueError, match="min_entropy=9 nats and varies in the test frames: rare, half"):
        varying(named, labels, labels, 9.0)


def test_the_table_of_games():
    assert len(games()) == 24
    pong = {variable.name: variable for variable in ram_variables("ALE/Pong-v5")}
    assert pong["ball_x"] == ("ball_x", "small_object_localization", 49)
    assert pong["player_y"][1:] == ("agent_localization", 51) and pong["enemy_y"].category == "other_localization"
    assert pong["player_score"].category == "score_clock_lives_display" and len(pong) == 8
    breakout = {variable.name: variable.entry for variable in ram_variables("BreakoutNoFrameskip-v4")}
    assert breakout["block_bit_map_0"] == 0 and breakout["block_bit_map_29"] == 29 and len(breakout) == 35
    assert [game_of(id) for id in ("ALE/MsPacman-v5", "MsPacmanNoFrameskip-v4", "ALE/MontezumaRevenge-v5")] == [
        "mspacman",
        "mspacman",
        "montezumarevenge",
    ]
    for game in games():
        own = ram_variables(game)
        assert all(0 <= variable.entry < 128 for variable in own) and len({v.name for v in own}) == len(own)
    with pytest.raises(ValueError, match="unknown game with annotated RAM 'pang': did you mean pong"):
        ram_variables("ALE/Pang-v5")


def test_every_game_of_the_table_is_one_that_ale_has():
    import ale_py

    gymnasium.register_envs(ale_py)
    known = {game_of(id) for id in gymnasium.registry if id.startswith("ALE/")}
    assert set(games()) <= known


# --- encoders ---------------------------------------------------------------------------------------------------------


def test_features_before_the_final_relu():
    torch.manual_seed(0)
    image = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    network = NatureCNN(image, features_dim=16)
    inputs = torch.rand(5, 4, 84, 84)
    before = BeforeFinalReLU(network)
    found = before(inputs)
    assert before.ends_with_relu and (found < 0).any()
    torch.testing.assert_close(found.relu(), network(inputs))
    inplace = BeforeFinalReLU(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(inplace=True)))
    assert (inplace(torch.randn(9, 3)) < 0).any()
    linear = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    before = BeforeFinalReLU(linear)
    torch.testing.assert_close(before(torch.ones(2, 3)), linear(torch.ones(2, 3)))
    assert not before.ends_with_relu
    assert not any(part._forward_hooks for part in network.modules()), "hooks stay while it runs, no longer"


def test_pixels_are_the_newest_frame_averaged_down():
    stack = torch.zeros(1, 4, 84, 84)
    stack[0, 3, :4, :4] = 1.0
    found = Pixels(1, 21)(stack)
    assert found.shape == (1, 441) and found[0, 0] == 1.0 and found.sum() == 1.0
    assert Pixels(None, 21)(torch.ones(2, 5)).tolist() == [[1.0] * 5] * 2


def test_words_become_arms(tmp_path):
    (tmp_path / "encoder").mkdir()
    arms = read_arms({"a": "curl", "b": ["curl", "source.k=3"], "c": str(tmp_path)}, ["random", "pixels"], [0])
    assert [(arm.name, arm.kind) for arm in arms] == [
        ("random", "random"),
        ("pixels", "pixels"),
        ("a", "objective"),
        ("b", "objective"),
        ("c", "saved"),
    ]
    assert arms[3].objective().source.k == 3 and arms[2].settings(0) != arms[3].settings(0)
    assert [arm.name for arm in read_arms("random", ["random"], [0])] == ["random"]
    assert [arm.name for arm in read_arms(["atc", "temporal"], None, [0])] == ["atc", "temporal"]
    with pytest.raises(ValueError, match="there is no 'crul': did you mean curl"):
        read_arms("crul", [], [0]) if (tmp_path / "crul").exists() else read_arms({"x": "crul"}, [], [0])
    with pytest.raises(ValueError, match="there is no 'runs/x/seed_1'"):
        read_arms({"x": "runs/x/seed_{seed}"}, [], [1, 2])
    with pytest.raises(ValueError, match="overrides belong to a preset"):
        read_arms({"x": ["random", "a=1"]}, [], [0])
    with pytest.raises(ValueError, match=r"did you mean source\.k"):
        read_arms({"x": ["curl", "source.kk=1"]}, [], [0])
    with pytest.raises(ValueError, match="baselines must be of random, supervised, pixels, got 'majority'"):
        read_arms("curl", ["majority"], [0])
    with pytest.raises(ValueError, match="two encoders have the name 'curl'"):
        read_arms(["curl", "curl"], [], [0])
    with pytest.raises(ValueError, match="nothing to probe"):
        read_arms(None, [], [0])


def test_an_agent_of_any_algorithm_gives_its_encoder_and_plays():
    env = make("Pendulum-v1", seed=0)
    model = SAC(
        "MlpPolicy",
        env,
        policy_kwargs=vector_encoder(net_arch=[8]),
        device="cpu",
        seed=1,
    )
    model.save("agent.zip")
    space = env.observation_space
    for role in ("critic", "actor"):
        expected = getattr(model, role).features_extractor
        found = load("agent.zip", space, "cpu", role)
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], value)
    observation = env.reset()
    policy, _ = load_policy("agent.zip", "cpu")
    expected, _ = model.predict(observation, deterministic=True)
    np.testing.assert_allclose(policy.predict(observation, deterministic=True)[0], expected, atol=1e-5)
    save_checkpoint(model, Path("run"), replay_buffer=False)
    assert load_policy("run", "cpu").where == Path("run/checkpoint/model.zip")
    with pytest.raises(ValueError, match="was trained on observations Box"):
        load("agent.zip", spaces.Box(-1, 1, (5,)), "cpu")
    PPO("MlpPolicy", env, device="cpu").save("flat.zip")
    with pytest.raises(ValueError, match="has no encoder with weights"):
        load("flat.zip", space, "cpu")
    with pytest.raises(ValueError, match="an agent must be a run of contraux rl or"):
        load_policy("nothing.zip", "cpu")


def test_an_agent_saved_with_its_auxiliary_and_a_frozen_encoder_load_too():
    env = make("CartPole-v1", seed=0)
    agent = ContrastivePPO("MlpPolicy", env, policy_kwargs=vector_encoder(), n_steps=32, batch_size=32, device="cpu")
    agent.learn(64)
    agent.save("agent.zip")
    found = load("agent.zip", env.observation_space, "cpu")
    inputs = torch.randn(3, 4)
    torch.testing.assert_close(found(inputs), agent.policy.features_extractor(inputs))
    encoder = PretrainedEncoder(MLP(4, hidden=[5], out=3), (4,), [0.0] * 4, [2.0] * 4)
    frozen = PPO("MlpPolicy", env, policy_kwargs=pretrained_encoder(encoder, mode="frozen"), device="cpu")
    frozen.save("frozen.zip")
    torch.testing.assert_close(load("frozen.zip", env.observation_space, "cpu")(inputs), encoder(inputs))


# --- frames and what they are labelled with ---------------------------------------------------------------------------


class Walk(gymnasium.Env):
    """The state is one whole number; the observation shows it, whole episodes of four steps."""

    observation_space = spaces.Dict(
        {"seen": spaces.Box(-100, 100, (2,), np.float32), "state": spaces.Box(-100, 100, (1,), np.float32)}
    )
    action_space = spaces.Discrete(2)
    begun = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.begun, self.t = self.begun + 1, 0
        return self.look()

    def step(self, action):
        self.t += 1
        observation, info = self.look()
        return observation, float(action), self.t == 4, False, info

    def look(self):
        self.state = np.array([10 * self.begun + self.t])
        seen = np.array([self.state[0], -self.state[0]], np.float32)
        return {"seen": seen, "state": self.state.astype(np.float32)}, {"state": self.state[0], "word": "x"}


@pytest.mark.parametrize("labels", ["info.state", "observation.state", "attribute.state"])
def test_the_label_is_the_state_of_that_very_observation_also_where_an_episode_begins(labels):
    found = record(functools.partial(make, Walk, n_envs=2), "Walk", frames=20, seed=0, labels=labels)
    indices = np.arange(len(found))
    observations = found.observations(indices)
    seen = observations["seen" if "seen" in observations else ""]
    assert seen[:, 0].tolist() == found.labels[:, 0].tolist()
    assert found.labels[::2, 0].tolist() == [10, 11, 12, 13, 20, 21, 22, 23, 30, 31]
    assert found.episode[::2].tolist()[:9] == [0, 0, 0, 0, *[found.episode[8]] * 4, found.episode[16]]
    assert found.variables == vector_variables("state", 1)
    assert (labels == "observation.state") == ("state" not in observations)
    assert not set(found.episode[::2]) & set(found.episode[1::2])


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ("ram", "ALE|annotated RAM"),
        ("rom", "labels must be one of ram, info.KEY, observation.LEAF, attribute.PATH, got 'rom'"),
        ("info.speed", "labels=info.speed needs that key in the info of every reset and step"),
        ("info.word", "labels must be numbers"),
        ("observation.speed", "must name one of several leaves of the observation, got 'speed' for seen, state"),
        ("attribute.speed", "labels=attribute.speed is no attribute of the environment"),
    ],
)
def test_labels_that_are_not_there_are_refused(labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        record(functools.partial(make, Walk), "Walk", frames=4, seed=0, labels=labels)


def test_random_frames_of_pong_have_their_own_ram():
    make_pong = functools.partial(atari, "ALE/Pong-v5")
    found = record(make_pong, "ALE/Pong-v5", frames=300, seed=3, labels="ram")
    again = record(make_pong, "ALE/Pong-v5", frames=300, seed=3, labels="ram")
    np.testing.assert_array_equal(found.labels, again.labels)
    observations = found.observations(np.arange(300))[""]
    np.testing.assert_array_equal(observations, again.observations(np.arange(300))[""])
    assert observations.shape == (300, 4, 84, 84) and found.labels.dtype == np.uint8
    # The green paddle on the right is the agent's: where it is in the picture says player_y, of the newest frame.
    column = {variable.name: i for i, variable in enumerate(found.variables)}["player_y"]
    newest = observations[:, 3, 14:77, 74].astype(float)
    newest -= np.median(newest)
    height = (np.abs(newest) * np.arange(newest.shape[1])).sum(1) / np.maximum(np.abs(newest).sum(1), 1)
    there = np.abs(newest).sum(1) > 100
    assert there.mean() > 0.8
    assert np.corrcoef(height[there], found.labels[there, column])[0, 1] > 0.98
    assert found.ring.nbytes > 0 and len({found.frame(i) for i in range(300)}) > 200


def test_an_agent_plays_with_its_share_of_random_actions():
    class Always:
        def predict(self, observation, *, deterministic=False):
            return np.ones(len(observation["seen"]), dtype=np.int64), None

    shares = {}
    for epsilon in (0.0, 0.5, 1.0):
        found = record(
            functools.partial(make, Walk, n_envs=4), "Walk", frames=800, seed=0, agent=Always(), epsilon=epsilon
        )
        taken = found.ring.actions[found.env, found.row]
        shares[epsilon] = taken.mean()
    assert shares[0.0] == 1.0 and 0.65 < shares[0.5] < 0.85 and 0.4 < shares[1.0] < 0.6


# --- training without a policy ----------------------------------------------------------------------------------------


def cartpole():
    return functools.partial(make, "CartPole-v1", n_envs=4)


def test_an_objective_trains_the_encoder_and_leaves_global_random_numbers_alone():
    found = record(cartpole(), "CartPole-v1", frames=400, seed=0)
    before = torch.get_rng_state()
    encoders = [untrained(found.observer, 16, 5) for _ in range(2)]
    metrics = [Training(steps=40, batch_size=32)(encoder, preset("temporal"), found, 7) for encoder in encoders]
    assert torch.equal(before, torch.get_rng_state())
    assert metrics[0] == metrics[1] and math.isfinite(metrics[0]["loss"])
    fresh = untrained(found.observer, 16, 5)
    for one, other, first in zip(*(e.parameters() for e in encoders), fresh.parameters(), strict=True):
        assert torch.equal(one, other) and not torch.equal(one, first)
    early = Training(steps=2, batch_size=32)(untrained(found.observer, 16, 5), preset("temporal"), found, 7)
    long = Training(steps=300, batch_size=32, learning_rate=3e-3)(fresh, preset("temporal"), found, 7)
    assert long["loss"] < 0.9 * early["loss"]


def test_too_few_frames_for_a_batch_are_refused():
    found = record(cartpole(), "CartPole-v1", frames=40, seed=0)
    with pytest.raises(ValueError, match=r"at least one batch of 64 windows, got 40 frames"):
        Training(frames=40, steps=2)(untrained(found.observer, 8, 0), preset("temporal"), found, 0)


def test_labels_teach_the_encoder_what_it_was_not_born_with():
    found = record(cartpole(), "CartPole-v1", frames=1200, seed=0, labels="attribute.state")
    indices = np.arange(len(found))
    target = [(found.labels[:, 2] > 0).astype(int)]
    train = (indices[:900], [target[0][:900]])
    validation = (indices[900:], [target[0][900:]])
    encoder = untrained(found.observer, 8, 0)
    fitted = Supervised(steps=300, learning_rate=3e-3, every=50, patience=9)(encoder, found, train, validation, 0)
    assert fitted["validation_f1"] > 0.75 and fitted["updates"] == 300 and fitted["stopped_early"] == 0.0
    stubborn = Supervised(steps=300, learning_rate=1e-12, every=1, patience=3)(
        untrained(found.observer, 8, 0), found, train, (indices[900:], [np.full(len(found) - 900, -1)]), 0
    )
    assert stubborn["stopped_early"] == 1.0 and stubborn["updates"] < 300


@pytest.mark.parametrize("path", sorted((Path(contraux.__file__).parent / "configs/study").glob("*.yaml")))
def test_the_arms_of_every_study_exist_and_differ(path):
    encoders = yaml.safe_load(path.read_text())["encoders"]
    arms = read_arms(encoders, ["random", "supervised", "pixels"], [0, 1, 2])
    said = [arm.settings(0) for arm in arms]
    assert all(one != other for i, one in enumerate(said) for other in said[:i])
    if path.stem == "ram_objectives":
        assert set(presets()) == {arm.what for arm in arms if arm.kind == "objective"}, "every objective is in it"


def test_every_preset_trains_an_encoder_of_images_without_a_policy():
    found = record(functools.partial(atari, "ALE/Boxing-v5"), "ALE/Boxing-v5", frames=60, seed=0)
    for name in presets():
        encoder, fresh = untrained(found.observer, 8, 0), untrained(found.observer, 8, 0)
        metrics = Training(steps=2, batch_size=4)(encoder, preset(name), found, 0)
        assert math.isfinite(metrics["loss"]), name
        moved = [
            not torch.equal(one, other) for one, other in zip(encoder.parameters(), fresh.parameters(), strict=True)
        ]
        assert any(moved), name


def test_labels_teach_also_where_most_of_the_frame_never_changes():
    found = record(functools.partial(atari, "ALE/Pong-v5"), "ALE/Pong-v5", frames=600, seed=0, labels="ram")
    column = [variable.name for variable in found.variables].index("enemy_y")
    above = (found.labels[:, column] > np.median(found.labels[:, column])).astype(int)
    indices = np.arange(120, 600)  # without the first frames, in which the game has not begun
    train = (indices[:360], [above[indices[:360]]])
    validation = (indices[360:], [above[indices[360:]]])
    settings = Supervised(steps=60, batch_size=32, every=20)
    assert settings(untrained(found.observer, 32, 0), found, train, validation, 0)["validation_f1"] > 0.75
