"""Feature maps of the host's encoder as rows: which module, in which order, and that nothing stays behind."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from torch import nn

from contraux.clrl import VectorEncoder
from contraux.clrl.observations import Observer
from contraux.clrl.parts import build_parts
from contraux.clrl.sources import FeatureMaps
from contraux.clrl.sources.feature_maps import map_shapes, rows
from contraux.core.encoders import ImpalaCNN
from contraux.core.preset import preset

CPU = torch.device("cpu")
IMAGES = spaces.Box(0, 255, (1, 4, 4), np.uint8)


class Told:
    """A window whose observations are given, one array a time."""

    def __init__(self, *observations):
        self.observations = observations

    def observation(self, offset):
        return {"": self.observations[offset]}


class Small(nn.Module):
    """One 2 x 2 convolution with stride 2 on 4 x 4 images, batch norm, and the mean of what comes out."""

    features_dim = 2

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))

    def forward(self, x):
        return self.head(self.norm(self.conv(x)))


def observer(space=IMAGES):
    return Observer(space, True, CPU, spaces.Discrete(2))


def windows(n=3, times=3, seed=0):
    drawn = np.random.default_rng(seed).integers(0, 256, (times, n, 1, 4, 4), dtype=np.uint8)
    return Told(*drawn), drawn


def test_rows_are_positions_in_reading_order_and_windows_within():
    maps = torch.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)  # window, channel, row, column
    expected = [maps[window, :, row, column].tolist() for row in (0, 1) for column in (0, 1) for window in (0, 1)]
    assert rows(maps).tolist() == expected


def test_pairs_are_the_features_now_and_the_maps_now_and_later():
    encoder = Small().eval()
    source = FeatureMaps(encoder, observer(), k=2, layer="conv")
    assert source.sizes == {"local_dim": 2} and source.horizon == 2
    window, drawn = windows()
    pairs = source(window, torch.Generator())
    now, later = (torch.from_numpy(drawn[time]).float() / 255 for time in (0, 2))
    torch.testing.assert_close(pairs.query, encoder(now))
    torch.testing.assert_close(pairs.key, rows(encoder.conv(later)))
    torch.testing.assert_close(pairs.context["key_local"], rows(encoder.conv(now)))
    assert pairs.key.shape == (4 * 3, 2) and pairs.positive.tolist() == [0, 1, 2]


@pytest.mark.parametrize("path", ["query", "key", "key_local"])
def test_gradient_reaches_the_encoder_by_every_path(path):
    encoder = Small()
    pairs = FeatureMaps(encoder, observer(), layer="conv")(windows()[0], torch.Generator())
    found = {"query": pairs.query, "key": pairs.key, "key_local": pairs.context["key_local"]}[path]
    (gradient,) = torch.autograd.grad(found.square().sum(), encoder.conv.weight)
    assert gradient.abs().amin() > 0


def test_one_pass_for_both_times_and_no_hook_before_or_after():
    encoder, calls = Small(), []
    source = FeatureMaps(encoder, observer())
    assert not any(module._forward_hooks for module in encoder.modules())
    encoder.conv.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    source(windows()[0], torch.Generator())
    assert calls == [6]
    assert not any(module._forward_hooks for module in encoder.modules())

    def broken(x):
        raise RuntimeError("no memory")

    encoder.head.forward = broken
    with pytest.raises(RuntimeError, match="no memory"):
        source(windows()[0], torch.Generator())
    assert not any(module._forward_hooks for module in encoder.modules())


def test_looking_for_the_map_moves_nothing():
    encoder = Small()
    encoder.norm.eval()  # frozen statistics, which stay frozen
    before, state = {k: v.clone() for k, v in encoder.state_dict().items()}, torch.get_rng_state()
    source = FeatureMaps(encoder, observer())
    assert source.layer == "norm"  # the last map
    assert encoder.training and encoder.conv.training and not encoder.norm.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_last_map_of_known_encoders():
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    source = FeatureMaps(NatureCNN(space), observer(space))
    assert source.layer == "cnn.5" and source.sizes == {"local_dim": 64}
    shapes = map_shapes(NatureCNN(space), torch.zeros(2, 4, 84, 84))
    assert shapes["cnn.5"] == (64, 7, 7) and shapes["cnn.3"] == (64, 9, 9)
    assert FeatureMaps(NatureCNN(space), observer(space), layer="cnn.1").sizes == {"local_dim": 32}
    impala = ImpalaCNN((3, 40, 32))
    shapes = map_shapes(impala, torch.zeros(2, 3, 40, 32))
    assert shapes[list(shapes)[-1]] == (32, 5, 4)
    # 36 x 36 images end in one position, which is no map: then the one before
    small = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    assert FeatureMaps(NatureCNN(small), observer(small)).layer == "cnn.3"


def test_images_in_a_dict_have_maps_too():
    space = spaces.Dict({"image": spaces.Box(0, 255, (1, 44, 44), np.uint8), "state": spaces.Box(-1, 1, (3,))})
    encoder = CombinedExtractor(space)
    source = FeatureMaps(encoder, observer(space))
    assert source.layer == "extractors.image.cnn.5"

    class Both:
        def observation(self, offset):
            return {"image": np.full((2, 1, 44, 44), offset, np.uint8), "state": np.zeros((2, 3), np.float32)}

    assert source(Both(), torch.Generator()).query.shape == (2, encoder.features_dim)


def test_what_has_no_map_is_refused_in_one_sentence():
    space = spaces.Box(-1, 1, (6,))
    with pytest.raises(
        ValueError, match=r"more than one position, got VectorEncoder without one .* kind vector"
    ) as found:
        build_parts(preset("stdim"), VectorEncoder(space), observer(space))
    assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match="unknown layer with a feature map 'cov': did you mean conv"):
        FeatureMaps(Small(), observer(), layer="cov")
    with pytest.raises(ValueError, match=r"'head': .*There are: conv, norm"):
        FeatureMaps(Small(), observer(), layer="head")
    with pytest.raises(ValueError, match="k must be a whole number >= 1, got 0"):
        FeatureMaps(Small(), observer(), k=0)
