"""The control arm whose positives mean nothing: all as in the true arm, but for who is whose positive."""

import numpy as np
import torch
from gymnasium import spaces
from sb3_hosts import HOSTS
from torch import nn

from contraux.clrl import ContrastiveAuxiliary
from contraux.clrl.observations import Observer
from contraux.clrl.sources import ObservationPairs, ShamPairs
from contraux.core.preset import preset

SPACE = spaces.Box(-1, 1, (2,), np.float32)


class Windows:
    """Four windows; observation t of window n is (n, t)."""

    def observation(self, offset):
        return {"": np.array([[n, offset] for n in range(4)], np.float32)}


def pairs(kind, **settings):
    encoder = nn.Linear(2, 2, bias=False)
    nn.init.eye_(encoder.weight)
    source = kind(encoder, Observer(SPACE, False, torch.device("cpu"), spaces.Discrete(2)), k=3, **settings)
    return source(Windows(), torch.Generator().manual_seed(0)), encoder


def test_every_key_is_that_of_another_window():
    sham, encoder = pairs(ShamPairs)
    torch.testing.assert_close(sham.query, torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
    torch.testing.assert_close(sham.key, torch.tensor([[3.0, 3.0], [0.0, 3.0], [1.0, 3.0], [2.0, 3.0]]))
    assert sham.positive.tolist() == [0, 1, 2, 3]
    (sham.query * sham.key[:, :1]).sum().backward()
    assert encoder.weight.grad.abs().sum() > 0


def test_in_the_shared_pass_too():
    observer = Observer(SPACE, False, torch.device("cpu"), spaces.Discrete(2))
    sham = ShamPairs(nn.Identity(), observer, k=1)
    features = torch.arange(8.0).reshape(4, 2)
    found = sham.pairs_with(features, features + 10, torch.Generator())
    torch.testing.assert_close(found.query, features)
    torch.testing.assert_close(found.key, (features + 10)[[3, 0, 1, 2]])


def test_nothing_else_differs_from_the_true_arm():
    for settings in ({}, {"momentum": 0.0}, {"momentum": 0.9}):
        (true, _), (sham, _) = pairs(ObservationPairs, **settings), pairs(ShamPairs, **settings)
        torch.testing.assert_close(sham.query, true.query, rtol=0, atol=0)
        torch.testing.assert_close(sham.key.sort(dim=0).values, true.key.sort(dim=0).values, rtol=0, atol=0)


def test_trains_by_the_override_of_an_experiment_and_cannot_find_its_positives():
    found = {}
    for arm, override in {"true": [], "sham": ["source._target_=contraux.clrl.sources.ShamPairs"]}.items():
        model = HOSTS["PPO"].make()
        auxiliary = ContrastiveAuxiliary(preset("temporal", *override), batch_size=32)
        model.learn(640, callback=auxiliary)
        found[arm] = model.logger.name_to_value["auxiliary/mutual_information"]
    assert found["sham"] < found["true"] - 0.3
