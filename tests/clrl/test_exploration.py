"""The callback in real hosts: where the bonus goes, that nothing else changes, and that it goes on after a load."""

import copy
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_hosts import HOSTS
from stable_baselines3 import A2C, DQN, HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from contraux.agents import with_auxiliary
from contraux.clrl import ContrastiveAuxiliary
from contraux.clrl.exploration import EpisodicKNN, NoveltyBonus
from contraux.clrl.exploration.rewards import add_to_rollout

BONUSES = ("episodic", "elliptical", "rnd")


class Recorder(BaseCallback):
    """What a host is about to learn from, at the end of each rollout."""

    def __init__(self):
        super().__init__()
        self.rewards, self.starts, self.advantages, self.returns, self.values = [], [], [], [], []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        buffer = self.model.rollout_buffer
        for name in ("rewards", "advantages", "returns", "values"):
            getattr(self, name).append(getattr(buffer, name).copy())
        self.starts.append(buffer.episode_starts.copy())


class Constant:
    """A bonus of 1 for every observation."""

    embedded = True

    def __init__(self, host):
        self.steps = []

    def begin(self, envs, first):
        self.begun = first

    def novelty(self, steps):
        self.steps.append(steps)
        return torch.ones(steps.ended.shape)

    def update(self):
        pass

    def metrics(self):
        return {}

    def state(self):
        return {}

    def load_state(self, tensors):
        pass


def same(one, other):
    left, right = one.policy.state_dict(), other.policy.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# --- returns and advantages -------------------------------------------------------------------------------------------


def gae(rewards, values, last_values, ends, gamma, lam):
    """Generalized advantages in float64, from the definition: sums of (gamma lambda)^l delta within the episode."""
    n_steps, n_envs = rewards.shape
    after = np.concatenate([values[1:], last_values[None]]).astype(np.float64)
    delta = rewards.astype(np.float64) + gamma * after * ~ends - values
    advantages = np.zeros((n_steps, n_envs))
    for env in range(n_envs):
        for t in range(n_steps):
            for i in range(t, n_steps):
                advantages[t, env] += (gamma * lam) ** (i - t) * delta[i, env]
                if ends[i, env]:
                    break
    return advantages


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 0.99]), st.sampled_from([0.0, 0.9, 1.0]))
def test_advantages_after_a_bonus_are_those_of_rewards_with_the_bonus(seed, gamma, lam):
    rng = np.random.default_rng(seed)
    n_steps, n_envs = 7, 3
    buffer = RolloutBuffer(
        n_steps, spaces.Box(-1, 1, (1,)), spaces.Discrete(2), "cpu", gae_lambda=lam, gamma=gamma, n_envs=n_envs
    )
    ends = rng.random((n_steps, n_envs)) < 0.3
    rewards, values = (rng.normal(size=(n_steps, n_envs)).astype(np.float32) for _ in range(2))
    last_values, bonus = rng.normal(size=n_envs).astype(np.float32), rng.exponential(size=(n_steps, n_envs))
    starts = np.concatenate([np.ones((1, n_envs), dtype=bool), ends[:-1]])
    for t in range(n_steps):
        buffer.add(
            np.zeros((n_envs, 1)), np.zeros((n_envs, 1)), rewards[t], starts[t], torch.as_tensor(values[t]),
            torch.zeros(n_envs),
        )  # fmt: skip
    buffer.compute_returns_and_advantage(torch.as_tensor(last_values), ends[-1])
    add_to_rollout(buffer, bonus, ends[-1])
    expected = gae(rewards + bonus, values, last_values, ends, gamma, lam)
    np.testing.assert_allclose(buffer.advantages, expected, atol=2e-5)
    np.testing.assert_allclose(buffer.returns, expected + values, atol=2e-5)


@pytest.mark.parametrize("name", ["PPO", "A2C", "RecurrentPPO", "MaskablePPO", "TRPO"])
def test_a_host_learns_from_its_rewards_and_the_bonus(name):
    """Time limits within the rollout (an episode has 5 steps), and the bootstrapped value they leave in the rewards."""
    found, plain = Recorder(), Recorder()
    for recorder, callbacks in ((plain, []), (found, [NoveltyBonus(Constant, 0.5)])):
        model = HOSTS[name].make(n_steps=32)
        model.set_env(make_vec_env(HOSTS[name].env, n_envs=2, seed=3, wrapper_class=FiveSteps))
        model.learn(64, callback=[*callbacks, recorder])
    added = found.rewards[0] - plain.rewards[0]
    assert added.min() > 0 and np.unique(added.round(5)).size == 1  # the first rollout is the same up to the bonus
    assert plain.rewards[0].max() > 1.01  # a truncated episode's last value is in there, and stays
    starts = found.starts[0].astype(bool)
    assert starts[5].all() and starts[10].all()
    ends = np.concatenate([starts[1:], np.zeros((1, 2), dtype=bool)])  # the last of 32 steps ends no episode of 5
    buffer = model.rollout_buffer
    last = np.where(ends[-1], 0, (plain.returns[0][-1] - plain.rewards[0][-1]) / buffer.gamma)
    expected = gae(found.rewards[0], found.values[0], last, ends, buffer.gamma, buffer.gae_lambda)
    np.testing.assert_allclose(found.advantages[0], expected, atol=1e-3)
    np.testing.assert_allclose(found.returns[0], expected + found.values[0], atol=1e-3)


class FiveSteps(gymnasium.wrappers.TimeLimit):
    def __init__(self, env):
        super().__init__(env, 5)

    def action_masks(self):
        return np.array([True, True])


# --- weight 0, and what stays the environment's -----------------------------------------------------------------------


@pytest.mark.parametrize("bonus", BONUSES)
@pytest.mark.parametrize("name", ["PPO", "A2C", "DQN", "SAC"])
def test_weight_0_changes_no_bit_and_weight_1_does(name, bonus):
    host, fewer = HOSTS[name], {"gradient_steps": 1} if name == "SAC" else {}
    plain = host.make(**fewer).learn(80)  # each made when its turn comes, which seeds the global generators
    watched = host.make(**fewer).learn(80, callback=NoveltyBonus(bonus, 0.0))
    rewarded = host.make(**fewer).learn(80, callback=NoveltyBonus(bonus, 1.0))
    assert same(plain, watched) and not same(plain, rewarded)
    assert type(rewarded) is type(plain) and "_contraux" not in str(vars(rewarded).keys())


@pytest.mark.parametrize("name", ["PPO", "DQN", "SAC"])
def test_logged_returns_stay_the_environments(name):
    host = HOSTS[name]
    model = host.make() if name == "PPO" else host.make(learning_starts=1000)
    model.learn(420, callback=NoveltyBonus("elliptical", 100.0))
    returns = [(info["r"], info["l"]) for info in model.ep_info_buffer]
    assert returns
    for found, length in returns:
        assert found == length if host.env == "CartPole-v1" else found <= 0


@pytest.mark.parametrize("name", ["PPO", "DQN"])
def test_nothing_is_left_on_the_model_after_an_error(name):
    class Failing(Constant):
        def novelty(self, steps):
            raise RuntimeError("out of memory")

    model = HOSTS[name].make()
    before = set(vars(model))
    with pytest.raises(RuntimeError, match="out of memory"):
        model.learn(200, callback=NoveltyBonus(Failing, 1.0))
    assert set(vars(model)) - before <= {"_logger", "start_time", "_last_obs"}
    model.learn(200)  # as if nothing had been
    assert type(model) is type(HOSTS[name].make())


# --- off-policy -------------------------------------------------------------------------------------------------------


def scaled(bonus):
    return np.minimum(1 / bonus.scale.deviation, 5.0)


@pytest.mark.parametrize("normalized", [False, True])
def test_off_policy_stores_the_reward_with_the_bonus(normalized):
    env = make_vec_env("Pendulum-v1", n_envs=2, seed=3)
    plain = make_vec_env("Pendulum-v1", n_envs=2, seed=3)
    if normalized:
        env, plain = VecNormalize(env), VecNormalize(plain)
    models = []
    for own, weight in ((plain, 0.0), (env, 0.5)):
        model = HOSTS["SAC"].make(learning_starts=1000)  # random actions, the same in both
        model.set_env(own)
        bonus = NoveltyBonus(Constant, weight)
        divisors = []

        class Divisors(BaseCallback):
            def _on_step(self):
                divisors.append(np.sqrt(self.training_env.ret_rms.var + 1e-8) if normalized else 1.0)  # noqa: B023
                return True

        model.learn(100, callback=[bonus, Divisors()])
        models.append((model, np.array(divisors)))
    added = models[1][0].replay_buffer.rewards[:50] - models[0][0].replay_buffer.rewards[:50]
    scale = np.array([0.5 * min(1 / d, 5.0) for d in deviations(50, 2, gamma=0.99)])
    np.testing.assert_allclose(added, np.repeat((scale * models[1][1][:50])[:, None], 2, axis=1), rtol=1e-4)
    if normalized:  # as large when it comes out as it went in, and unseen by the statistics of rewards
        assert models[0][0].get_vec_normalize_env().ret_rms.var == models[1][0].get_vec_normalize_env().ret_rms.var
        assert added[-1, 0] / models[1][1][49] == pytest.approx(scale[-1], rel=1e-4)


def deviations(steps, n_envs, gamma):
    """Of the returns of a constant 1, step by step, after SB3's first guess (variance 1 with a weight of 1e-4)."""
    returns, seen = 0.0, []
    for _ in range(steps):
        returns = gamma * returns + 1
        seen += [returns] * n_envs
        total = len(seen) + 1e-4
        mean = sum(seen) / total
        yield np.sqrt((sum(x * x for x in seen) + 1e-4) / total - mean**2 + 1e-8)


def test_n_step_returns_hold_the_bonus():
    model = HOSTS["DQN"].make(n_steps=3, learning_starts=1000)
    model.learn(60, callback=NoveltyBonus(Constant, 10.0))
    assert isinstance(model.replay_buffer, NStepReplayBuffer)
    assert model.replay_buffer.sample(32).rewards.min() > 1.0 and model.replay_buffer.rewards[:30].min() > 1.0


def test_relabelled_goals_are_refused():
    env = BitFlippingEnv(n_bits=4)
    model = DQN("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, buffer_size=100, device="cpu")
    with pytest.raises(ValueError, match="keeps the rewards it is given, got HerReplayBuffer"):
        model.learn(10, callback=NoveltyBonus())


# --- what the bonus is given ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PPO", "DQN"])
def test_the_bonus_is_of_the_next_observation_and_the_terminal_one_at_an_end(name):
    host = HOSTS[name]
    made = []

    def factory(built_for):
        made.append(Constant(built_for))
        return made[0]

    model = host.make()
    seen = []

    class Spy(BaseCallback):
        def _on_step(self):
            seen.append(copy.deepcopy({key: self.locals[key] for key in ("new_obs", "dones", "infos")}))
            return True

    model.learning_rate = 0.0
    model.lr_schedule = lambda _: 0.0  # so that the embedding stays what it is
    model.learn(400, callback=[Spy(), NoveltyBonus(factory, 0.0, unit_length=False)])
    encoder = model.policy.features_extractor if name == "PPO" else model.q_net.features_extractor
    following = torch.cat([steps.following for steps in made[0].steps])
    ended = np.concatenate([steps.ended for steps in made[0].steps])
    first = torch.cat([steps.first for steps in made[0].steps if steps.first is not None])
    expected, begun = [], []
    for step in seen:
        rows = step["new_obs"].copy()
        for env in np.flatnonzero(step["dones"]):
            begun.append(rows[env].copy())
            rows[env] = step["infos"][env]["terminal_observation"]
        expected.append(rows)
    with torch.no_grad():
        np.testing.assert_allclose(following, encoder(torch.as_tensor(np.concatenate(expected))), atol=1e-6)
        np.testing.assert_allclose(first, encoder(torch.as_tensor(np.stack(begun))), atol=1e-6)
    np.testing.assert_array_equal(ended, [step["dones"] for step in seen])
    assert ended.any() and not following.requires_grad


def test_memories_go_on_between_learns_and_begin_anew_with_the_environment():
    model, bonus = HOSTS["PPO"].make(), NoveltyBonus(lambda host: EpisodicKNN(host), 0.1)
    model.learn(64, callback=bonus)
    counts = bonus.bonus.count.copy()
    assert counts.max() > 1
    model.learn(1, callback=bonus, reset_num_timesteps=False)  # 32 steps more of each environment
    starts = model.rollout_buffer.episode_starts
    for env in range(2):
        run_on = 32 - (np.flatnonzero(starts[:, env]).max() if starts[:, env].any() else -counts[env])
        expected = run_on + 1 if starts[:, env].any() else run_on
        assert bonus.bonus.count[env] == (1 if model._last_episode_starts[env] else expected)
    begun = []
    bonus.bonus.begin = lambda envs, first: begun.append(envs.copy())
    bonus.bonus.novelty = lambda steps: torch.ones(steps.ended.shape)
    model.learn(32, callback=bonus)
    assert begun[0].all()


def test_the_projection_of_the_auxiliary_is_an_embedding_too():
    model = HOSTS["PPO"].make()
    bonus = NoveltyBonus("elliptical", embedding="projection")
    model.learn(64, callback=[bonus, ContrastiveAuxiliary("curl", batch_size=16)])
    assert bonus.bonus.inverse_EDD.shape == (2, 128, 128)
    with pytest.raises(ValueError, match="embedding=projection needs a ContrastiveAuxiliary on the same encoder"):
        HOSTS["PPO"].make().learn(64, callback=NoveltyBonus(embedding="projection"))


@pytest.mark.parametrize("env", ["contraux-tests/Ball-v0", "contraux-tests/BallWithState-v0"])
@pytest.mark.parametrize("bonus", BONUSES)
def test_images_and_dicts(env, bonus):
    policy = "MultiInputPolicy" if "State" in env else "CnnPolicy"
    model = A2C(policy, make_vec_env(env, n_envs=2, seed=0), n_steps=8, seed=0, device="cpu")
    callback = NoveltyBonus(bonus, 0.1)
    model.learn(64, callback=callback)
    assert callback.scale.deviation > 0 and np.isfinite(callback.scale.deviation)


# --- settings and state -----------------------------------------------------------------------------------------------


def test_the_weight_follows_a_schedule():
    weights = []

    class Weights(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            weights.append(self.logger.name_to_value["exploration/weight"])

    HOSTS["PPO"].make().learn(256, callback=[NoveltyBonus("elliptical", LinearSchedule(1.0, 0.0, 0.5)), Weights()])
    assert weights == [1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"bonus": "episodc"}, "unknown bonus 'episodc': did you mean episodic"),
        ({"bonus": 3}, "bonus must be a name or a factory of bonuses, got 3"),
        ({"weight": -1}, "weight must be a number >= 0, got -1"),
        ({"embedding": "pixels"}, "unknown embedding 'pixels'"),
        ({"encoder": "all"}, "unknown encoder 'all'"),
    ],
)
def test_settings_out_of_range(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        NoveltyBonus(**arguments)


def test_a_schedule_below_zero_is_refused_when_it_gets_there():
    with pytest.raises(ValueError, match=r"weight must be a number >= 0, got -1\.0"):
        HOSTS["PPO"].make().learn(64, callback=NoveltyBonus("elliptical", lambda remaining: -remaining))


@pytest.mark.parametrize("bonus", BONUSES)
def test_a_saved_bonus_goes_on(tmp_path, bonus):
    host = HOSTS["PPO"]
    model, callback = host.make(), NoveltyBonus(bonus, 0.5)
    model.learn(300 if bonus == "rnd" else 64, callback=callback)  # so that the predictor takes a step
    model.save(tmp_path / "m")
    callback.save(tmp_path / "m")
    assert (tmp_path / "m.exploration.safetensors").exists()
    ends = []
    for fresh in (False, True, True):
        loaded = host.load(tmp_path / "m")
        again = NoveltyBonus(bonus, 0.5, seed=99)
        if fresh:
            again.load(tmp_path / "m.zip")
        loaded.set_random_seed(5)
        loaded.learn(64, callback=again, reset_num_timesteps=False)
        ends.append((loaded, again))
    assert same(ends[1][0], ends[2][0]) and not same(ends[0][0], ends[1][0])
    assert ends[1][1].scale.moments.count == pytest.approx(callback.scale.moments.count + 64, rel=1e-3)


def test_a_bonus_in_use_takes_over_a_state_too(tmp_path):
    model, callback = HOSTS["PPO"].make(), NoveltyBonus("rnd")
    model.learn(64, callback=callback)
    callback.save(tmp_path / "m")
    saved = callback.scale.moments.count
    model.learn(64, callback=callback, reset_num_timesteps=False)
    model.learn(64, callback=callback.load(tmp_path / "m"), reset_num_timesteps=False)
    assert callback.scale.moments.count == saved + 64


def test_a_state_of_another_kind_and_a_missing_file_are_refused(tmp_path):
    model, callback = HOSTS["PPO"].make(), NoveltyBonus("elliptical")
    model.learn(64, callback=callback)
    callback.save(tmp_path / "m")
    with pytest.raises(ValueError, match="of the kind of this one, EpisodicKNN, got Elliptical"):
        HOSTS["PPO"].make().learn(64, callback=NoveltyBonus("episodic").load(tmp_path / "m"))
    with pytest.raises(FileNotFoundError):
        NoveltyBonus().load(tmp_path / "other")
    with pytest.raises(ValueError, match="a NoveltyBonus serves one model, got a second PPO"):
        HOSTS["PPO"].make().learn(64, callback=callback)


def test_agents_save_and_load_their_bonus(tmp_path):
    host = HOSTS["DQN"]
    kind = with_auxiliary(host.algorithm)
    agent = host._replace(algorithm=kind).make(auxiliary=None, exploration=NoveltyBonus("rnd", 0.5))
    agent.learn(80)
    agent.save(tmp_path / "agent")
    with pytest.warns(UserWarning, match="saved with a novelty bonus and is loaded without"):
        host.load(tmp_path / "agent", kind)
    loaded = kind.load(
        tmp_path / "agent", env=make_vec_env(host.env, n_envs=2, seed=3), exploration=NoveltyBonus("rnd", 0.5, seed=9)
    )
    assert loaded.auxiliary is None
    loaded.learn(40, reset_num_timesteps=False)
    assert torch.equal(loaded.exploration.bonus.target[-1].weight, agent.exploration.bonus.target[-1].weight)
    assert loaded.exploration.scale.moments.count > agent.exploration.scale.moments.count
    plain = host.algorithm.load(tmp_path / "agent", env=make_vec_env(host.env, n_envs=2))
    assert type(plain) is host.algorithm  # Stable-Baselines3 itself still reads the file


def test_integers_cannot_take_a_bonus():
    from contraux.clrl.exploration.rewards import add_to_stored

    model = SimpleNamespace(get_vec_normalize_env=lambda: None)
    with pytest.raises(ValueError, match="rewards of a floating type, got int64"):
        add_to_stored(model, np.array([1, 2]), np.array([0.5, 0.5]))
