"""`contraux rl encoder.checkpoint=...` and the same in a comparison, through the real command line."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env

from contraux.agents.agent import make_agent
from contraux.clrl import ContrastiveAuxiliary, VectorEncoder, pretrained_encoder
from contraux.clrl.slow import SCALE
from contraux.core.encoders import MLP, NatureCNN, PretrainedEncoder, describe

TINY = ["env.n_envs=2", "threads=1", "evaluation.episodes=1", "evaluation.every=null", "tensorboard=false"]
PPO_WORDS = [*TINY, "agent.n_steps=32", "agent.batch_size=32", "agent.n_epochs=1", "steps=256"]


def save(folder, shape=(4,)):
    torch.manual_seed(0)
    if len(shape) == 1:
        config = {"_target_": "contraux.core.encoders.MLP", "hidden": [8], "out": 6}
        encoder = MLP(shape, [8], 6)
    else:
        config, encoder = describe(NatureCNN), NatureCNN(shape)
    made = PretrainedEncoder(encoder, shape, [0.1] * shape[0], [2.0] * shape[0], config)
    made.save_pretrained(folder)
    return made


def same(encoder, extractor):
    one, other = encoder.state_dict(), extractor.encoder.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def final(run, algorithm=PPO):
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    return algorithm.load(run / "checkpoint" / "model.zip").policy


def test_pixels_stay_bit_identical_and_a_run_is_resumed_without_the_checkpoint(contraux_rl, tmp_path):
    encoder = save(tmp_path / "pretraining" / "encoder", (4, 84, 84))  # as a run of contraux pretrain has it
    words = ["env=ALE/Boxing-v5", "+env.kwargs.max_num_frames_per_episode=400", "agent=dqn", "objective=none",
             "agent.learning_starts=64", "agent.buffer_size=500",
             "agent.batch_size=8", "steps=200", "encoder.checkpoint=pretraining", "encoder.mode=frozen"]  # fmt: skip
    done = contraux_rl.run("rl", *TINY, *words, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    policy = final(tmp_path / "run", DQN)
    assert same(encoder, policy.q_net.features_extractor) and same(encoder, policy.q_net_target.features_extractor)
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 84, 84), dtype=np.uint8)
    features = policy.extract_features(policy.obs_to_tensor(image)[0], policy.q_net.features_extractor)
    torch.testing.assert_close(features, encoder(torch.as_tensor(image)), rtol=1e-5, atol=1e-6)
    shutil.rmtree(tmp_path / "pretraining")
    done = contraux_rl.run("rl", "resume=run", "steps=300", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert same(encoder, final(tmp_path / "run", DQN).q_net.features_extractor)


def test_slow_keeps_the_optimizer_that_the_algorithm_chooses(contraux_rl, tmp_path):
    encoder = save(tmp_path / "encoder")
    words = ["agent=a2c", "agent.n_steps=16", "steps=64", "encoder.checkpoint=encoder", "encoder.mode=slow"]
    done = contraux_rl.run("rl", *TINY, *words, "encoder.learning_rate_scale=0.5", "auxiliary.batch_size=16",
                    "hydra.run.dir=run", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").encoder.mode == "slow"
    policy = final(tmp_path / "run", A2C)
    optimizer = policy.optimizer
    assert not same(encoder, policy.features_extractor)
    assert isinstance(optimizer, torch.optim.RMSprop) and optimizer.defaults["alpha"] == 0.99
    assert [group[SCALE] for group in optimizer.param_groups] == [1.0, 0.5]


def test_arms_of_a_comparison_differ_in_the_encoder(contraux_rl, tmp_path):
    encoder = save(tmp_path / "encoder")
    arms = ["+compare.arms.base=['objective=none']",
            "+compare.arms.frozen=['objective=none','encoder.checkpoint=encoder','encoder.mode=frozen']"]  # fmt: skip
    done = contraux_rl.run("compare", *PPO_WORDS, "compare.name=own", "compare.seeds=1", *arms,
                    "hydra/launcher=basic", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "compare" / "own"
    assert same(encoder, final(folder / "frozen" / "seed_0").features_extractor)
    assert type(final(folder / "base" / "seed_0").features_extractor).__name__ == "VectorEncoder"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["encoder.checkpoint=encoder", "env=Acrobot-v1"], "trained on inputs (4,), but observations are (6,)"),
        (["encoder.mod=frozen"], "unknown key 'encoder.mod': did you mean encoder.mode"),
    ],
)
def test_sentences_of_the_command_line(contraux_rl, tmp_path, words, sentence):
    save(tmp_path / "encoder")
    done = contraux_rl.run("rl", *PPO_WORDS, *words, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert sentence in done.stderr


def agent(algorithm=PPO, env="CartPole-v1", auxiliary=None, policy_kwargs=None, **encoder):
    return make_agent(
        algorithm,
        make_vec_env(env, 1),
        auxiliary=auxiliary,
        encoder=partial(pretrained_encoder, **{"checkpoint": "encoder", **encoder}),
        policy_kwargs=policy_kwargs,
    )


def test_an_agent_with_an_encoder_and_other_arguments_of_its_policy(tmp_path):
    made = save(tmp_path / "encoder")
    model = agent(policy_kwargs={"net_arch": [5]}, mode="slow")
    assert same(made, model.policy.features_extractor) and model.policy.net_arch == [5]
    assert model.policy.optimizer.defaults["eps"] == 1e-5  # PPO's own


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"checkpoint": "nowhere/at/all"}, "there is no folder 'nowhere/at/all'"),
        ({"mode": "forzen"}, "unknown mode 'forzen': did you mean frozen"),
        ({"mode": "slow", "learning_rate_scale": -1}, r"learning_rate_scale must be a number in \(0, 1\], got -1"),
        ({"env": "Pendulum-v1", "algorithm": SAC}, r"trained on inputs \(4,\), but observations are \(3,\)"),
        ({"algorithm": SAC}, "SAC: The algorithm only supports"),
        ({"policy_kwargs": {"features_extractor_class": VectorEncoder}}, "got features_extractor_class for the policy"),
        ({"mode": "frozen", "auxiliary": ContrastiveAuxiliary()}, "found frozen ones only: PretrainedExtractor"),
    ],
)
def test_sentences(tmp_path, arguments, sentence):
    save(tmp_path / "encoder")
    with pytest.raises(ValueError, match=sentence):
        agent(**arguments)
