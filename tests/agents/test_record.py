"""`contraux record`: what it writes is what was seen; real games, early ends, and what cannot be recorded."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import ale_py
import cv2
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.atari_wrappers import MaxAndSkipEnv, WarpFrame

from contraux.agents.player import channels_last
from contraux.agents.record import record
from contraux.agents.recorded import show
from contraux.core.data import frames
from contraux.core.data.area import coverage, grey, resize_by_area
from contraux.core.data.growing import Growing
from contraux.core.encoders import load_encoder

CLI = [sys.executable, "-m", "contraux", "record"]


def loaded(folder):
    return {path.stem: np.load(path, allow_pickle=False) for path in Path(folder).glob("*.npy")}


class Counting(gymnasium.Env):
    """Frame t of an episode has level 10 * episode + t; an episode has four steps; the reward is the action."""

    metadata = {"render_modes": ["rgb_array"]}
    action_space = spaces.Discrete(3)

    def __init__(self, kind="image", render_mode=None, channels_first=False):
        self.kind, self.render_mode, self.episode = kind, render_mode, -1
        shape = (3, 6, 5) if channels_first else (6, 5, 3)
        self.observation_space = {
            "image": spaces.Box(0, 255, shape, np.uint8),
            "vector": spaces.Box(-1e3, 1e3, (2,), np.float64),
            "dict": spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Box(0, 9, (1,), np.float32)}),
            "sequence": spaces.Sequence(spaces.Discrete(2)),
        }[kind]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self.look(), {}

    def step(self, action):
        self.t += 1
        return self.look(), float(action), self.t == 4, False, {}

    def look(self):
        level = 10 * self.episode + self.t
        return {
            "image": np.full(self.observation_space.shape or (), level, np.uint8),
            "vector": np.array([level, -level], dtype=float),
            "dict": {"b": level % 3, "a": np.array([level % 10], np.float32)},
            "sequence": (1, 0),
        }[self.kind]

    def render(self):
        return np.full((6, 5, 3), 100 + 10 * self.episode + self.t, np.uint8)


def test_frames_come_before_actions_and_an_episodes_last_is_not_recorded(tmp_path):
    summary = record(Counting, tmp_path / "out", steps=10, seed=3)
    found = loaded(tmp_path / "out")
    assert set(found) == {"frames", "episodes", "actions", "rewards"}
    assert found["frames"].shape == (10, 6, 5, 3) and found["frames"].dtype == np.uint8
    assert found["frames"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21]
    assert found["episodes"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    np.testing.assert_array_equal(found["rewards"], found["actions"])
    assert set(found["actions"].tolist()) == {0, 1, 2}
    assert summary["finished_episodes"] == 2
    assert summary["mean_return"] == np.mean([found["rewards"][:4].sum(), found["rewards"][4:8].sum()])
    written = json.loads((tmp_path / "out" / "record.json").read_text())
    assert written["status"] == "completed" and written["frames"] == 10 and written["env"] == "Counting"
    assert (
        written["files"] == ["actions", "episodes", "frames", "rewards"] and "torch" in written["versions"]["libraries"]
    )


def test_a_seed_decides_everything(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        record(Counting, tmp_path / name, steps=30, seed=seed)
    actions = [loaded(tmp_path / name)["actions"].tolist() for name in "abc"]
    assert actions[0] == actions[1] != actions[2]


def test_an_action_lasts_several_frames_and_its_rewards_add_up(tmp_path):
    record(Counting, tmp_path / "out", steps=5, frame_skip=3)
    found = loaded(tmp_path / "out")
    assert found["frames"][:, 0, 0, 0].tolist() == [0, 3, 10, 13, 20]  # no maximum: this is no Atari game
    np.testing.assert_array_equal(found["rewards"], found["actions"] * [3, 1, 3, 1, 3])


@pytest.mark.parametrize(
    ("kind", "observations"),
    [("vector", [[0, 0], [1, -1], [2, -2]]), ("dict", [[0, 1, 0, 0], [1, 0, 1, 0], [2, 0, 0, 1]]), ("sequence", None)],
)
def test_without_images_among_the_observations_what_is_rendered_is_recorded(tmp_path, kind, observations):
    record(Counting, tmp_path / "out", steps=3, kwargs={"kind": kind})
    found = loaded(tmp_path / "out")
    assert found["frames"][:, 0, 0, 0].tolist() == [100, 101, 102]
    if observations is None:
        assert "observations" not in found
    else:
        assert found["observations"].dtype == np.float32
        np.testing.assert_array_equal(found["observations"], observations)


def test_channels_come_last(tmp_path):
    record(Counting, tmp_path / "out", steps=2, kwargs={"channels_first": True})
    assert loaded(tmp_path / "out")["frames"].shape == (2, 6, 5, 3)
    assert channels_last(np.zeros((7, 9))).shape == (7, 9, 1)
    assert channels_last(np.zeros((1, 9, 9))).shape == (9, 9, 1)
    assert channels_last(np.zeros((3, 9, 3))).shape == (3, 9, 3)


def test_boxing_with_its_memory_is_a_data_set(tmp_path):
    summary = record("ALE/Boxing-v5", tmp_path / "out", steps=100)
    found = loaded(tmp_path / "out")
    assert summary["frame_skip"] == 4 and summary["frames"] == 100
    assert found["frames"].shape == (100, 210, 160, 3) and found["ram"].shape == (100, 128)
    assert found["ram"].dtype == np.uint8 and found["actions"].max() > 10
    data = frames("train", path=tmp_path / "out", label="ram", frame_stack=4, test_share=0)
    batch = data.__getitems__([50, 0])
    assert batch.inputs.shape == (2, 12, 210, 160) and data.shape == (12, 210, 160)
    np.testing.assert_array_equal(batch.inputs[0, 9:], found["frames"][50].transpose(2, 0, 1))
    assert 5 < len(data.label_names) < 128
    bytes_of = [int(name.removeprefix("ram_")) for name in data.label_names]
    np.testing.assert_array_equal(batch.labels, found["ram"][[50, 0]][:, bytes_of])


def test_boxing_is_seen_as_the_agents_of_contraux_rl_see_it(tmp_path):
    record("ALE/Boxing-v5", tmp_path / "out", steps=40, seed=5, size=84, grayscale=True)
    found = loaded(tmp_path / "out")
    gymnasium.register_envs(ale_py)
    raw = gymnasium.make("ALE/Boxing-v5", frameskip=1)
    wrapped = WarpFrame(MaxAndSkipEnv(raw, skip=4))
    observation, _ = wrapped.reset(seed=5)
    for t in range(40):
        difference = observation.astype(int) - found["frames"][t].astype(int)
        assert abs(difference).max() <= 1, t  # of rounding
        np.testing.assert_array_equal(raw.unwrapped.ale.getRAM(), found["ram"][t])
        observation, reward, *_ = wrapped.step(found["actions"][t])
        assert reward == found["rewards"][t]


@pytest.mark.parametrize(("old", "new"), [((210, 160), (84, 84)), ((8, 6), (4, 2)), ((50, 70), (49, 13))])
def test_resizing_averages_areas_as_opencv_does(old, new):
    image = np.random.default_rng(0).integers(0, 256, (*old, 3), dtype=np.uint8)
    right = cv2.resize(image, new[::-1], interpolation=cv2.INTER_AREA)
    assert abs(resize_by_area(image, new).astype(int) - right).max() <= 1
    assert abs(grey(image)[..., 0].astype(int) - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).max() <= 1


def test_coverage_by_hand():
    np.testing.assert_allclose(coverage(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], rtol=1e-6)
    np.testing.assert_allclose(coverage(2, 3), [[1, 0], [0.5, 0.5], [0, 1]], rtol=1e-6)
    image = np.array([[[0], [30], [90]], [[60], [60], [60]]], np.uint8)
    assert resize_by_area(image, (1, 2)).tolist() == [[[35], [65]]]  # means of columns 30, 45, 75
    constant = np.full((9, 5, 1), 255, np.uint8)
    assert (resize_by_area(constant, (4, 7)) == 255).all()


def test_a_growing_array_is_whole_whatever_ends_it(tmp_path):
    with pytest.raises(KeyError), Growing(tmp_path / "a.npy", (2,), np.float32) as file:
        for i in range(1234):
            file.append([i, -i])
        raise KeyError
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy")[1233], [1233, -1233])
    assert np.load(tmp_path / "a.npy", mmap_mode="r").shape == (1234, 2)
    with Growing(tmp_path / "b.npy", (), np.int64) as file:
        file.append(7)
        with pytest.raises(ValueError, match=r"every row must have shape \(\), got \(2,\) in row 1"):
            file.append([1, 2])
    assert np.load(tmp_path / "b.npy").tolist() == [7]


def test_an_error_of_the_environment_leaves_nothing(tmp_path):
    class Breaks(Counting):
        def step(self, action):
            if self.episode == 2:
                raise RuntimeError("broken")
            return super().step(action)

    with pytest.raises(RuntimeError, match="broken"):
        record(Breaks, tmp_path / "out", steps=100)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_not_touched(tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(ValueError, match="folder must be new or empty, got "):
        record(Counting, tmp_path, steps=1)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"frame_skip": 0}, "frame_skip must be a whole number >= 1, got 0"),
        ({"size": [1, 2, 3]}, r"size must be one whole number, or height and width, got \[1, 2, 3\]"),
        ({"size": "84"}, "size must be a whole number >= 1, got '84'"),
        ({"kwargs": {"wrong": 1}}, "cannot be made with {'wrong': 1}: "),
        ({"id": "Boxin-v5"}, "env must be an option or an id Gymnasium knows, got 'Boxin-v5'"),
        ({"id": "ALE/Boxing-v5", "kwargs": {"difficulty": 77}}, "ALE/Boxing-v5 cannot be made with"),
    ],
)
def test_what_breaks_a_rule_is_said(tmp_path, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        record(**{"id": Counting, "folder": tmp_path / "out", "steps": 1, **arguments})
    assert not list(tmp_path.iterdir())


def test_an_environment_that_shows_nothing_is_refused(tmp_path):
    class Blind(Counting):
        metadata = {"render_modes": ["human"]}

    class Empty(Counting):
        def render(self):
            return None

    with pytest.raises(ValueError, match=r"must show images to be recorded, but .* renders no rgb_array, got render m"):
        record(Blind, tmp_path / "out", kwargs={"kind": "vector"})
    with pytest.raises(ValueError, match=r"must render an image, an array \(H, W, 3\), got NoneType"):
        record(Empty, tmp_path / "out", kwargs={"kind": "vector"})


def test_cartpole_is_rendered_or_its_missing_package_named(tmp_path):
    try:
        import pygame  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match=r"rendering needs a package that is not installed: pygame"):
            record("CartPole-v1", tmp_path / "out", steps=1)
    else:
        record("CartPole-v1", tmp_path / "out", steps=30)
        found = loaded(tmp_path / "out")
        assert found["frames"].shape[0] == 30 and found["observations"].shape == (30, 4)


def test_time_limits_end_episodes_too(tmp_path):
    record(lambda: TimeLimit(Counting(), 2), tmp_path / "out", steps=5)
    assert loaded(tmp_path / "out")["episodes"].tolist() == [0, 0, 1, 1, 2]


def test_from_the_command_line_an_interrupt_keeps_what_there_is(tmp_path):
    words = ["env=ALE/Boxing-v5", "steps=10_000_000", "size=[21,16]", "grayscale=true", "folder=out"]
    child = subprocess.Popen([*CLI, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    growing = Path("out.unfinished/frames.npy")
    until = time.monotonic() + 60
    while not (growing.exists() and growing.stat().st_size > 50 * 21 * 16) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGINT)
    said, wrong = child.communicate(timeout=60)
    assert child.returncode == 130, wrong
    found = loaded("out")
    count = len(found["frames"])
    assert 50 <= count < 10_000_000 and {len(array) for array in found.values()} == {count}
    assert found["frames"].shape[1:] == (21, 16, 1)
    written = json.loads(Path("out/record.json").read_text())
    assert (written["status"], written["by"], written["frames"]) == ("interrupted", "SIGINT", count)
    assert f"{count} of 21 x 16 x 1, stopped by SIGINT" in said and "data.path=out" in said
    assert sorted(path.name for path in Path().iterdir()) == ["out"]


def test_from_the_command_line_a_mistake_is_one_sentence_and_leaves_nothing(contraux_rl, tmp_path):
    done = contraux_rl.run("record", "env=boxing", "steps=-1", "folder=out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "contraux: steps must be a whole number >= 1, got -1\n")
    assert not list(Path().iterdir())


def printed(capsys, folder, **settings):
    summary = record(settings.pop("env", Counting), folder, **settings)
    capsys.readouterr()
    show(folder, summary)
    return {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in capsys.readouterr().out.splitlines()}


def test_the_line_that_is_recommended_runs(contraux_rl, tmp_path, capsys):
    found = printed(capsys, tmp_path / "my box", env="ALE/Boxing-v5", steps=20, size=84, grayscale=True)
    assert "for contraux rl" not in found
    program, job, *words = shlex.split(found["next"])
    assert (program, job) == ("contraux", "pretrain")
    assert words == ["data=frames", "data.path=my box", "data.frame_stack=4", "encoder=nature", "data.test_share=0",
                     "batch_size=20"]  # fmt: skip
    short = ["epochs=1", "threads=1", "pictures=false", "hydra.run.dir=run"]
    done = contraux_rl.run(job, *words, *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    encoder = load_encoder(tmp_path / "run")
    assert encoder.input_shape == (4, 84, 84) and encoder.out_features == 512


class Dark(Counting):
    def look(self):
        return np.zeros((6, 5, 3), np.uint8)


def test_other_frames_get_an_encoder_that_takes_them(tmp_path, capsys):
    found = printed(capsys, tmp_path / "colours", env="ALE/Boxing-v5", steps=5)
    assert found["next"] == (
        "contraux pretrain data=frames data.path=colours encoder=nature data.test_share=0 batch_size=5"
    )
    assert found["for contraux rl"].startswith("record with size=84 grayscale=true")
    found = printed(capsys, tmp_path / "small", env=Dark, steps=400)
    assert found["next"] == "contraux pretrain data=frames data.path=small encoder=small_cnn"
    assert "for contraux rl" not in found
    few = printed(capsys, tmp_path / "few", steps=10)["next"]  # episodes of 4, 4 and 2 frames, one of them for testing
    training = frames("train", path=tmp_path / "few")
    assert few.endswith(f"encoder=small_cnn batch_size={len(training)}") and len(training) in (6, 8)
