"""A small discriminator and small methods, for tests of the tap."""

import torch
from torch import nn

from contraux.clgen import GenerativeMethod
from contraux.core.pairs import Outcome


class Disc(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 6, 3, 2, 1))
        self.head = nn.Linear(6, 1)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Gap(GenerativeMethod):
    """The squared distance of the mean features of real and fake, through a head."""

    generator_roles = ("fake",)
    optional = ("labels",)

    def __init__(self, sizes):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(sizes["features"]))
        self.updates = 0

    def forward(self, features, context):
        self.seen = features
        real, fake = (features[role]["features"] for role in self.roles)
        gap = self.scale * (real.mean(0) - fake.mean(0))
        return Outcome(gap.square().sum(), {"gap": gap.detach().norm()})

    def generator(self, features, context):
        return Outcome((self.scale * features["fake"]["features"].mean(0)).square().sum(), {})

    def update(self):
        self.updates += 1


class Stopped(Gap):
    stop_gradient = True


class Keyed(Gap):
    key_roles = ("real_key",)
    momentum = 0.5


class Spread(GenerativeMethod):
    """Of one call: how near the rows are to each other, through a head."""

    roles = ("denoise",)

    def __init__(self, sizes):
        super().__init__()
        self.head = nn.Linear(sizes["features"][0], 3)

    def forward(self, features, context):
        self.seen = features
        z = self.head(features["denoise"]["features"])
        return Outcome(torch.cdist(z, z).square().neg().exp().mean(), {})


def images(rows=3, seed=0, channels=1, size=8):
    return torch.randn(rows, channels, size, size, generator=torch.Generator().manual_seed(seed))


def grads(*modules):
    """The gradients of these modules' weights, which they then lose."""
    found = [None if p.grad is None else p.grad.clone() for module in modules for p in module.parameters()]
    for module in modules:
        module.zero_grad()
    return found


def assert_same(found, expected, **how):
    assert len(found) == len(expected) and any(one is not None for one in expected)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, **how)
