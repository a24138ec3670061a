"""Recordings as data: splits by episodes, stacked frames, bytes of memory as labels."""

import pickle

import numpy as np
import pytest
import torch

from contraux.core.data import batches, frames

EPISODES = np.repeat([0, 1, 2, 3, 4], [3, 1, 4, 2, 5])


@pytest.fixture
def recording(tmp_path):
    """Frame t has level 10 + t in the first channel and 100 + t in the second; byte 5 of the memory is t // 4."""
    folder = tmp_path / "recording"
    folder.mkdir()
    t = np.arange(15)
    pixels = np.stack([10 + t, 100 + t], -1)[:, None, None] * np.ones((1, 3, 4, 1))
    np.save(folder / "frames.npy", pixels.astype(np.uint8))
    np.save(folder / "episodes.npy", EPISODES)
    ram = np.full((15, 128), 9, dtype=np.uint8)
    ram[:, 5], ram[:, 7] = t // 4 * 10, 200 + t
    np.save(folder / "ram.npy", ram)
    return folder


def times(data):
    return (data.__getitems__(range(len(data))).inputs[:, -1, 0, 0] - 100).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_no_episode_is_in_both_splits(recording, seed):
    train, test = (frames(split, path=recording, test_share=0.4, seed=seed) for split in ("train", "test"))
    assert sorted(times(train) + times(test)) == list(range(15))
    of_train, of_test = (set(EPISODES[times(data)]) for data in (train, test))
    assert not of_train & of_test and len(of_test) == 2
    assert train.shape == (2, 3, 4) and (train.mean, train.std) == (test.mean, test.std)
    levels = (np.array(times(train)) + np.array([[10], [100]])) / 255
    np.testing.assert_allclose(train.mean, levels.mean(1), rtol=1e-12)
    np.testing.assert_allclose(train.std, levels.std(1), rtol=1e-12)


def test_stacks_stay_within_their_episode_with_zeros_before_it(recording):
    data = frames("train", path=recording, frame_stack=3, test_share=0)
    assert data.shape == (6, 3, 4) and len(data.mean) == len(data.std) == 6 and data.mean[:2] == data.mean[4:]
    found = data.__getitems__([2, 3, 4, 5, 14, 0]).inputs[:, :, 0, 0].tolist()
    assert found == [
        [10, 100, 11, 101, 12, 102],  # the third of its episode
        [0, 0, 0, 0, 13, 103],  # the only one of its episode
        [0, 0, 0, 0, 14, 104],
        [0, 0, 14, 104, 15, 105],
        [22, 112, 23, 113, 24, 114],
        [0, 0, 0, 0, 10, 100],
    ]


def test_stacks_are_those_of_stable_baselines3(recording):
    import gymnasium
    from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

    pixels = np.load(recording / "frames.npy")

    class Replay(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (3, 4, 2), np.uint8)
        action_space = gymnasium.spaces.Discrete(1)
        t = -1

        def reset(self, *, seed=None, options=None):
            self.t += 1
            return pixels[self.t], {}

        def step(self, action):
            if self.t + 1 == len(EPISODES) or EPISODES[self.t + 1] != EPISODES[self.t]:
                return np.zeros((3, 4, 2), np.uint8), 0.0, True, False, {}
            self.t += 1
            return pixels[self.t], 0.0, False, False, {}

    env = VecFrameStack(DummyVecEnv([Replay]), 3)
    seen = [env.reset()]
    while len(seen) < 15:
        seen.append(env.step([0])[0])
    data = frames("train", path=recording, frame_stack=3, test_share=0)
    np.testing.assert_array_equal(data.__getitems__(range(15)).inputs, np.concatenate(seen).transpose(0, 3, 1, 2))


def test_labels_are_bytes_of_the_memory(recording):
    one = frames("train", path=recording, label=5, test_share=0)
    assert one.classes == ("0", "10", "20", "30") and one.label_names == ()
    assert one.__getitems__([0, 4, 14]).labels.tolist() == [0, 1, 3]
    every = frames("test", path=recording, label="ram", test_share=0.4, seed=1)
    assert every.label_names == ("ram_5", "ram_7") and every.classes == ()
    labels = every.__getitems__(range(len(every))).labels
    t = np.array(times(every))
    np.testing.assert_array_equal(labels, np.stack([t // 4 * 10, 200 + t], 1))
    assert labels.dtype == torch.int64
    assert frames("train", path=recording).__getitems__([0, 1]).labels.tolist() == [-1, -1]


def test_a_pickle_holds_no_frames_and_workers_read_for_themselves(recording):
    data = frames("train", path=recording, frame_stack=2, test_share=0)
    large = np.zeros((15, 200, 200, 2), np.uint8)
    np.save(recording / "frames.npy", large)
    data = frames("train", path=recording, frame_stack=2, test_share=0)
    assert len(pickle.dumps(data)) < large.nbytes / 50
    read = torch.cat([batch.inputs for batch in batches(data, [[i] for i in range(15)], workers=2)])
    assert torch.equal(read, data.__getitems__(range(15)).inputs)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"path": "nowhere"}, "path must be a folder that contraux record wrote, got 'nowhere', without a frames.npy"),
        ({"label": 128}, r"label must be null, ram, or a byte in \[0, 127\], got 128"),
        ({"label": "score"}, r"label must be null, ram, or a byte in \[0, 127\], got 'score'"),
        ({"frame_stack": 0}, "frame_stack must be a whole number >= 1, got 0"),
        ({"test_share": -0.1}, r"test_share must be a number in \[0, 1\), got -0.1"),
        ({"split": "val"}, "unknown split 'val'"),
    ],
)
def test_what_breaks_a_rule_is_said(recording, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        frames(**{"split": "train", "path": recording, **wrong})


def test_a_recording_of_one_episode_or_without_memory_is_told_apart(recording):
    np.save(recording / "episodes.npy", np.zeros(15, np.int64))
    with pytest.raises(ValueError, match="needs at least 2 episodes, got 1: record more steps"):
        frames("train", path=recording)
    (recording / "ram.npy").unlink()
    with pytest.raises(ValueError, match=r"label=ram needs the emulator's memory, got a recording without ram.npy"):
        frames("train", path=recording, label="ram", test_share=0)
    np.save(recording / "episodes.npy", np.zeros(14, np.int64))
    with pytest.raises(ValueError, match=r"episodes.npy \(T,\), got \(15, 3, 4, 2\) uint8 and \(14,\)"):
        frames("train", path=recording)
