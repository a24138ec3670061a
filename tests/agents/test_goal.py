"""Contrastive goal-conditioned RL: what is trained by what, what it learns, saving, callbacks, the command line."""

import csv
import json

import numpy as np
import pytest
import torch
from goal_envs import LineReach, PointReach
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import VecNormalize

from contraux.agents.agent import make_agent
from contraux.agents.checkpoint import load_checkpoint, save_checkpoint
from contraux.agents.environments import make
from contraux.agents.goal import ContrastiveRL
from contraux.agents.goal.algorithm import check_goal_space, entropy_coefficient, shuffled, usual_entropy
from contraux.agents.goal.energy import ENERGIES
from contraux.agents.goal.losses import LOSSES
from contraux.agents.goal.policy import CategoricalActor
from contraux.clrl import ContrastiveAuxiliary, vector_encoder

SMALL = {"policy_kwargs": {"net_arch": [32], "repr_dim": 8}, "batch_size": 32, "learning_starts": 40, "device": "cpu"}


def agent(env=None, **arguments):
    env = env or make(PointReach, seed=0, n_envs=2)
    return ContrastiveRL("MultiInputPolicy", env, **{"seed": 0, **SMALL, **arguments})


def changed(before, module):
    return {name for name, weight in module.named_parameters() if not torch.equal(weight, before[name])}


def copies(module):
    return {name: weight.detach().clone() for name, weight in module.named_parameters()}


@pytest.mark.parametrize("environment", [PointReach, LineReach])
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_energy_and_loss_trains_both_encoders_and_the_actor(environment, energy, loss):
    model = agent(make(environment, seed=0, n_envs=2), energy=energy, loss=loss).learn(40)
    critic, actor = copies(model.policy.critic), copies(model.policy.actor)
    model.train(1, 32)
    assert {"phi.0.weight", "psi.0.weight", "phi.2.bias"} <= changed(critic, model.policy.critic)
    assert changed(critic, model.policy.critic) >= ({"energy.weight"} if energy == "bilinear" else set())
    assert changed(actor, model.policy.actor) == set(actor)


@pytest.mark.parametrize("environment", [PointReach, LineReach])
def test_the_actor_step_leaves_the_critic_alone_and_the_critic_step_the_actor(environment):
    model = agent(make(environment, seed=0, n_envs=2)).learn(40)
    batch = model.replay_buffer.sample_futures(32)
    critic, actor = copies(model.policy.critic), copies(model.policy.actor)
    model._train_actor(batch.observations)
    assert not changed(critic, model.policy.critic) and changed(actor, model.policy.actor)
    assert all(weight.grad is None for weight in model.policy.critic.parameters())
    actor = copies(model.policy.actor)
    model._train_critic(batch.observations, batch.actions)
    assert changed(critic, model.policy.critic) and not changed(actor, model.policy.actor)


@pytest.mark.parametrize("loss", LOSSES)
def test_critic_gradient_by_hand(loss):
    """The documented expression, built anew in float64 from the critic's two MLPs."""
    model = agent(loss=loss, logsumexp_penalty=0.3, temperature=0.5).learn(40)
    batch = model.replay_buffer.sample_futures(16)
    observations = {name: value.double() for name, value in batch.observations.items()}
    critic = model.policy.critic.double()
    state = torch.cat([observations["achieved_goal"], observations["observation"], batch.actions.double()], 1)
    phi, psi = critic.phi(state), critic.psi(observations["desired_goal"])
    f = -(phi.unsqueeze(1) - psi.unsqueeze(0)).square().sum(2).sqrt() / 0.5
    true, log_sum = f.diagonal(), torch.log(torch.exp(f).sum(1))
    other = f[~torch.eye(16, dtype=torch.bool)]
    expected = {
        "forward": (log_sum - true).mean(),
        "backward": (torch.log(torch.exp(f).sum(0)) - true).mean(),
        "binary": -torch.log(torch.sigmoid(true)).mean() - torch.log(1 - torch.sigmoid(other)).mean(),
    }
    expected["symmetric"] = expected["forward"] + expected["backward"]
    gradients = torch.autograd.grad(expected[loss] + 0.3 * (log_sum**2).mean(), list(critic.parameters()))
    critic.float()
    energies, metrics = model._train_critic(batch.observations, batch.actions)
    torch.testing.assert_close(energies.double(), f.detach(), atol=1e-4, rtol=1e-4)
    assert metrics["critic_loss"].item() == pytest.approx(expected[loss].item(), rel=1e-5)
    assert metrics["logsumexp_penalty"].item() == pytest.approx((log_sum**2).mean().item(), rel=1e-5)
    for weight, gradient in zip(critic.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad.double(), gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("random_goals", [0.0, 0.25, 1.0])
def test_actor_gradient_and_alpha_by_hand(random_goals):
    model = agent(random_goals=random_goals, ent_coef="auto_0.2", target_entropy=-1.0).learn(40)
    observations = model.replay_buffer.sample_futures(16).observations
    count = int(16 * random_goals)
    goals = observations["desired_goal"]
    goals = torch.stack([goals[(i - 1) % count] if i < count else goals[i] for i in range(16)])
    torch.manual_seed(1)
    actions, log_prob = model.policy.actor.action_log_prob({**observations, "desired_goal": goals})
    critic = model.policy.critic
    phi = critic.phi(torch.cat([observations["achieved_goal"], observations["observation"], actions], 1))
    loss = (0.2 * log_prob + (phi - critic.psi(goals)).square().sum(1).sqrt()).mean()
    gradients = torch.autograd.grad(loss, list(model.policy.actor.parameters()))
    torch.manual_seed(1)
    metrics = model._train_actor(observations)
    assert metrics["actor_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for weight, gradient in zip(model.policy.actor.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, atol=1e-6, rtol=1e-4)
    entropy = metrics["entropy"].item()  # of actions near uniform in the square, log 4
    assert entropy > -1  # above the target, so that alpha falls; Adam's first step is the learning rate
    assert model.log_ent_coef.item() == pytest.approx(np.log(0.2) - 3e-4, abs=1e-6)


def test_actor_gradient_and_alpha_of_choices_by_hand():
    """The mean over all three choices, each put to the critic by itself."""
    model = agent(make(LineReach, seed=0, n_envs=2), random_goals=0.0, ent_coef="auto_0.2").learn(40)
    assert model.target_entropy == pytest.approx(np.log(3) / 2)
    batch = model.replay_buffer.sample_futures(16)
    observations, critic, actor = batch.observations, model.policy.critic, model.policy.actor
    assert set(batch.actions.unique().tolist()) == {0, 1, 2}
    state = torch.cat([observations["achieved_goal"], observations["observation"]], 1)
    chances = torch.softmax(actor.logits(torch.cat([observations[name] for name in sorted(observations)], 1)), 1)
    loss = torch.zeros(16)
    for choice in range(3):
        code = torch.zeros(16, 3)
        code[:, choice] = 1
        phi = critic.phi(torch.cat([state, code], 1))
        energy = -(phi - critic.psi(observations["desired_goal"])).square().sum(1).sqrt()
        loss = loss + chances[:, choice] * (0.2 * chances[:, choice].log() - energy.detach())
        stored = torch.full((16, 1), choice)
        torch.testing.assert_close(critic(observations, stored), energy)
    gradients = torch.autograd.grad(loss.mean(), list(actor.parameters()))
    metrics = model._train_actor(observations)
    assert metrics["actor_loss"].item() == pytest.approx(loss.mean().item(), rel=1e-5)
    for weight, gradient in zip(actor.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, atol=1e-6, rtol=1e-4)
    assert np.log(3) / 2 < metrics["entropy"].item() <= np.log(3)  # above the target, so that alpha falls
    assert model.log_ent_coef.item() == pytest.approx(np.log(0.2) - 3e-4, abs=1e-6)


def test_goals_of_other_rows():
    goals = torch.arange(5).unsqueeze(1)
    assert shuffled(goals, 3).squeeze(1).tolist() == [2, 0, 1, 3, 4]
    assert shuffled(goals, 0).equal(goals) and shuffled(goals, 5).squeeze(1).tolist() == [4, 0, 1, 2, 3]


@pytest.mark.parametrize("environment", [PointReach, LineReach])
def test_learning_tells_futures_apart_and_reaches_goals(environment):
    """300 updates: the classifier of 64 goals, right in 1 of 64 by chance; then more goals reached than at random."""
    arguments = {"batch_size": 64, "learning_rate": 3e-3, "gamma": 0.8, "learning_starts": 200}
    env, evaluation = make(environment, seed=0, n_envs=2), make(environment, seed=100, n_envs=10)
    model = agent(env, **arguments).learn(200)
    held_out = model.replay_buffer.sample_futures(64)

    def accuracy():
        with torch.no_grad():
            f = model.policy.critic.of_all_pairs(held_out.observations, held_out.actions)
        return (f.argmax(1) == torch.arange(64)).float().mean().item()

    def reached(act):
        evaluation.seed(5)
        observations, successes = evaluation.reset(), []
        while len(successes) < 60:
            observations, _, _, infos = evaluation.step(act(observations))
            successes += [info["is_success"] for info in infos if "episode" in info]
        return np.mean(successes)

    evaluation.action_space.seed(0)
    before, by_chance = accuracy(), reached(lambda _: np.stack([evaluation.action_space.sample() for _ in range(10)]))
    model.learn(600, reset_num_timesteps=False)
    assert before < 0.1 and accuracy() > 0.2
    assert reached(lambda observations: model.predict(observations, deterministic=True)[0]) > by_chance + 0.3


@pytest.mark.parametrize(("environment", "actions"), [(PointReach, (2, 2)), (LineReach, (2,))])
def test_saved_and_loaded_it_acts_alike_and_learns_on(environment, actions, tmp_path):
    env = make(environment, seed=0, n_envs=2)
    model = agent(env, energy="bilinear", loss="binary", random_goals=0.25, temperature=0.3).learn(100)
    model.save(tmp_path / "model")
    observations = model.env.reset()
    loaded = ContrastiveRL.load(tmp_path / "model", env=model.env, device="cpu")
    for act in (model, loaded):
        assert act.predict(observations, deterministic=True)[0].shape == actions
    np.testing.assert_array_equal(*(m.predict(observations, deterministic=True)[0] for m in (model, loaded)))
    assert (loaded.loss, loaded.random_goals, loaded.policy.critic.temperature) == ("binary", 0.25, 0.3)
    assert loaded.log_ent_coef.item() == model.log_ent_coef.item() != 0
    state = loaded.policy.critic.optimizer.state_dict()["state"]
    assert state and all(torch.equal(v["exp_avg"], model.policy.critic.optimizer.state_dict()["state"][k]["exp_avg"])
                         for k, v in state.items())  # fmt: skip
    before = copies(loaded.policy.critic)
    loaded.learn(100, reset_num_timesteps=False)
    assert changed(before, loaded.policy.critic) and loaded.num_timesteps == 200
    alone = ContrastiveRL.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(alone.predict(observations, deterministic=True)[0],
                                  model.predict(observations, deterministic=True)[0])  # fmt: skip


def test_an_actor_of_choices_is_saved_and_loaded_by_itself(tmp_path):
    model = agent(make(LineReach, seed=0, n_envs=2))
    model.policy.actor.save(tmp_path / "actor")
    loaded, observations = CategoricalActor.load(tmp_path / "actor", device="cpu"), model.env.reset()
    np.testing.assert_array_equal(*(actor.predict(observations, deterministic=True)[0]
                                    for actor in (model.policy.actor, loaded)))  # fmt: skip


def test_a_checkpoint_goes_on_with_its_buffer_and_without_the_broken_episodes(tmp_path):
    env = make(PointReach, seed=0, n_envs=2, kwargs={"labelled": True})
    model = agent(env, buffer_size=200).learn(50)  # 25 steps each: the third episode is at its fifth
    save_checkpoint(model, tmp_path)
    loaded = load_checkpoint(
        ContrastiveRL, tmp_path, make(PointReach, seed=9, n_envs=2, kwargs={"labelled": True}), "cpu"
    )
    assert loaded.replay_buffer.pos == 25
    loaded.learn(20, reset_num_timesteps=False)
    row, _, future = loaded.replay_buffer.draw(5000)
    before = row < 25
    assert before.any() and (~before).any() and (future[before] < 25).all()


def test_learning_again_resets_and_crosses_nothing():
    model = agent(make(PointReach, seed=0, n_envs=2, kwargs={"labelled": True}), learning_starts=1000)
    model.learn(50).learn(50)
    observations = model.replay_buffer.sample_futures(5000).observations
    assert (observations["achieved_goal"][:, 3] == observations["desired_goal"][:, 3]).all()
    assert set(observations["achieved_goal"][:, 3].int().tolist()) == {0, 1, 2, 3, 4, 5}


def test_terminated_episodes_callbacks_schedules_and_normalisation(tmp_path):
    env = VecNormalize(make(PointReach, seed=0, n_envs=3, kwargs={"terminates": True}), norm_reward=False)
    evaluation = VecNormalize(make(PointReach, seed=1, n_envs=2), norm_reward=False, training=False)
    callback = EvalCallback(evaluation, n_eval_episodes=4, eval_freq=20, log_path=str(tmp_path), verbose=0)
    model = agent(env, learning_rate=lambda remaining: 1e-3 * remaining, train_freq=2, gradient_steps=-1, ent_coef=0.1)
    model.learn(150, callback=callback)
    assert model._n_updates > 30 and model.policy.actor.optimizer.param_groups[0]["lr"] < 1e-3
    assert np.load(tmp_path / "evaluations.npz")["successes"].shape == (2, 4)
    assert len(model.ep_success_buffer)


def test_episodic_training_with_one_environment():
    model = agent(make(PointReach, seed=0), train_freq=(1, "episode"), gradient_steps=-1).learn(80)
    assert model._n_updates == 40  # of the episodes that ended at 50, 60, 70, 80


@pytest.mark.parametrize("environment", [PointReach, LineReach])
def test_an_auxiliary_trains_the_actors_encoder(environment):
    kwargs = {**SMALL["policy_kwargs"], **vector_encoder(hidden=[8], features_dim=8)}
    model = agent(make(environment, seed=0, n_envs=2), policy_kwargs=kwargs)
    auxiliary = ContrastiveAuxiliary("temporal", encoder="actor", batch_size=16)
    model.learn(100, callback=auxiliary)
    assert auxiliary.updates > 0
    with pytest.raises(ValueError, match="names no trained encoder of ContrastiveRL"):
        agent(policy_kwargs=kwargs).learn(10, callback=ContrastiveAuxiliary("temporal", encoder="critic"))


class Camera(PointReach):
    """The same with small images as observation and goals."""

    def __init__(self):
        super().__init__()
        picture = spaces.Box(0, 255, (3, 36, 36), np.uint8)
        self.observation_space = spaces.Dict(dict.fromkeys(self.observation_space, picture))

    def _observe(self):
        pictures = {}
        for name, at in (("achieved_goal", self.position), ("desired_goal", self.target)):
            pictures[name] = np.zeros((3, 36, 36), np.uint8)
            x, y = ((at + 1) * 17).astype(int)
            pictures[name][:, x : x + 2, y : y + 2] = 255
        return {"observation": pictures["achieved_goal"], **pictures}


def test_images_as_goals():
    model = make_agent(ContrastiveRL, make(Camera, seed=0), seed=0, device="cpu", batch_size=8, learning_starts=20,
                       buffer_size=100, policy_kwargs={"net_arch": [16]})  # fmt: skip
    before = copies(model.policy.critic)
    model.learn(24)
    moved = changed(before, model.policy.critic)
    assert {name.split(".")[0] for name in moved} == {"state_extractor", "goal_extractor", "phi", "psi"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"energy": "l3"}, "unknown energy 'l3'"),
        ({"loss": "nce"}, "unknown loss 'nce'"),
        ({"gamma": 1.0}, r"gamma must be a number in \(0, 1\), got 1.0"),
        ({"temperature": 0.0}, "temperature must be a number > 0, got 0.0"),
        ({"logsumexp_penalty": -1.0}, "logsumexp_penalty must be a number >= 0, got -1.0"),
        ({"random_goals": 1.5}, r"random_goals must be a number in \[0, 1\], got 1.5"),
        ({"batch_size": 1}, "batch_size must be a whole number >= 2, got 1"),
        ({"ent_coef": "automatic"}, "ent_coef must be a number >= 0, 'auto' or 'auto_'"),
        ({"policy_kwargs": {"repr_dim": 0}}, "repr_dim must be a whole number >= 1, got 0"),
    ],
)
def test_what_breaks_a_rule_is_said(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        agent(**arguments)


def test_environments_that_have_no_goals():
    with pytest.raises(ValueError, match=r"must be a Dict with observation, .*, got Box"):
        ContrastiveRL("MultiInputPolicy", "Pendulum-v1")
    space = PointReach().observation_space
    space.spaces["desired_goal"] = spaces.Box(-1, 1, (3,))
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(3,\)"):
        check_goal_space(space)

    class Switches(PointReach):
        action_space = spaces.MultiBinary(2)

    with pytest.raises(ValueError, match="ContrastiveRL: The algorithm only supports"):
        make_agent(ContrastiveRL, make(Switches, seed=0))
    Switches.action_space = spaces.Discrete(2, start=1)
    with pytest.raises(ValueError, match=r"choices must count from 0, got Discrete\(2, start=1\)"):
        make_agent(ContrastiveRL, make(Switches, seed=0))


def test_usual_entropies():
    assert usual_entropy(spaces.Box(-1, 1, (2, 3))) == -6 and usual_entropy(spaces.Discrete(4)) == np.log(2)


def test_entropy_coefficients():
    assert entropy_coefficient(0.5) == (False, 0.5) and entropy_coefficient("auto") == (True, 1.0)
    assert entropy_coefficient("auto_0.1") == (True, 0.1)
    for wrong in ("auto_0", "auto_x", "auto_inf", "0.5", -0.5):
        with pytest.raises(ValueError, match="ent_coef must be"):
            entropy_coefficient(wrong)


TINY = ["+env.kwargs.max_episode_steps=10", "env.n_envs=2", "agent.learning_starts=40", "agent.batch_size=16",
        "evaluation.every=100", "evaluation.episodes=3", "threads=1", "tensorboard=false"]  # fmt: skip


def test_compared_with_hindsight_from_the_command_line(contraux_rl, tmp_path):
    done = contraux_rl.run("compare", "experiment=goal_reaching", *TINY, "steps=200", "compare.seeds=1",
                    "hydra/launcher=basic", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs/compare/goal_reaching"
    assert "final success, %" in (folder / "table.md").read_text()
    assert (folder / "success.png").read_bytes().startswith(b"\x89PNG")
    arms = json.loads((folder / "results.json").read_text())["arms"]
    assert len(arms) >= 2 and all(arm["success"]["runs"] == 1 for arm in arms.values())
    runs = list(folder.glob("*/seed_0"))
    for run in runs:
        with (run / "progress.csv").open(newline="") as file:
            assert float(list(csv.DictReader(file))[-1]["train/actor_loss"])
        assert np.load(run / "evaluations.npz")["successes"].shape == (3, 3)


def test_bits_flipped_by_choices_against_hindsight_from_the_command_line(contraux_rl, tmp_path):
    done = contraux_rl.run("compare", "experiment=bit_flipping", "env.kwargs.n_bits=5", "steps=400", "compare.seeds=1",
                    "agent.learning_starts=100", "agent.batch_size=32", "evaluation.every=200", "evaluation.episodes=4",
                    "hydra/launcher=basic", "threads=1", "tensorboard=false", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    arms = json.loads((tmp_path / "runs/compare/bit_flipping/results.json").read_text())["arms"]
    assert {name: arm["success"]["runs"] for name, arm in arms.items()} == {"base": 1, "contrastive": 1}


def test_a_robot_arm_reaches_from_the_command_line(contraux_rl, tmp_path):
    done = contraux_rl.run("rl", "agent=contrastive_goal", "env=fetch_reach", "objective=none", *TINY, "steps=100",
                           "evaluation.every=null", "hydra.run.dir=run", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["taken_steps"] == 100


def test_resumed_from_the_command_line(contraux_rl, tmp_path):
    done = contraux_rl.run("rl", "agent=contrastive_goal", "env=point_maze", "objective=none", *TINY, "steps=120",
                    "agent.energy=cosine", "agent.temperature=0.1", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0 and "success in it" in done.stdout, done.stdout + done.stderr
    (run,) = tmp_path.glob("runs/rl/*")
    done = contraux_rl.run("rl", f"resume={run}", "steps=220", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((run / "result.json").read_text())["taken_steps"] == 220
    model = ContrastiveRL.load(run / "checkpoint" / "model.zip")
    assert (model.policy.critic.temperature, model.num_timesteps) == (0.1, 220)
    evaluations = np.load(run / "evaluations.npz")
    assert len(evaluations["successes"]) == len(evaluations["timesteps"]) == 4
