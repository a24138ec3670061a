"""CPC and ST-DIM from raw windows to the encoder: all features that they compare bring a gradient of their own."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN

from contraux.clrl import VectorEncoder
from contraux.clrl.observations import Observer
from contraux.clrl.parts import build_parts
from contraux.core.preset import preset

SPACES = {"cpc": spaces.Box(-1, 1, (5,)), "stdim": spaces.Box(0, 255, (1, 44, 44), np.uint8)}


class Window:
    def __init__(self, space, n):
        rng = np.random.default_rng(0)
        self.drawn = rng.integers(0, 256, (7, n, *space.shape)).astype(space.dtype)

    def observation(self, offset):
        return {"": self.drawn[offset]}


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name, own in (("cpc", "past"), ("stdim", "key_local")) for path in ("query", "key", own)],
)
def test_each_path_alone_brings_a_gradient_and_all_together_their_sum(name, path):
    torch.manual_seed(0)
    space = SPACES[name]
    encoder = VectorEncoder(space) if name == "cpc" else NatureCNN(space, 16)
    observer = Observer(space, True, torch.device("cpu"), spaces.Discrete(2))
    source, objective = build_parts(preset(name), encoder, observer)
    pairs = source(Window(space, 6), torch.Generator())
    parameters = list(encoder.parameters())[:4]  # up to the map that ST-DIM taps and beyond
    together = torch.autograd.grad(objective(pairs).loss, parameters, retain_graph=True)

    def alone(kept):
        held = {key: value if key == kept else value.detach() for key, value in pairs.context.items()}
        query, key = (
            getattr(pairs, side) if side == kept else getattr(pairs, side).detach() for side in ("query", "key")
        )
        loss = objective(pairs._replace(query=query, key=key, context=held)).loss
        found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]

    assert all(gradient.abs().amax() > 0 for gradient in alone(path))
    paths = [alone(kept) for kept in ("query", "key", *pairs.context)]
    for whole, *parts in zip(together, *paths, strict=True):
        torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-6)
