"""Two real processes (gloo) hold the same of what a checkpoint takes from the first; pytest starts this file twice."""

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

from contraux.clgen import training_gan as gan
from contraux.clgen.images import Images
from contraux.clgen.training_gan import ADA, Adversarial, Trainer

W = 2


class Shade(nn.Module):
    """A generator of even images, as bright as the first latent."""

    latent = 4

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.1))

    def forward(self, latents):
        return (self.weight * latents[:, :1]).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)


class Almost(nn.Module):
    """A discriminator that is sure, and wrong of the one real image that is dark."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))

    def forward(self, images):
        real = (images.std((1, 2, 3)) > 0.01) & (images.mean((1, 2, 3)) > -0.4)
        return self.weight * images.sum((1, 2, 3)) + 40 * real.float() - 20


def process(folder):
    torch.set_num_threads(1)
    tensor = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.5
    tensor[2] -= 1
    game = Adversarial(gan.non_saturating_discriminator, gan.non_saturating_generator, vanishing=0.01)
    rate = partial(torch.optim.SGD, lr=0.0)
    trainer = Trainer(
        Shade(), Almost(), Images(tensor, torch.full((4,), -1), ()), game, rate, rate, folder, augment=ADA(interval=4),
        steps=1, batch_size=4, device="cpu", progress_bar=False, sample_every=None,
    )  # fmt: skip
    kept = []
    make = trainer._engine
    trainer._engine = lambda accelerator: kept.append(make(accelerator)) or kept[0]
    trainer.fit()
    torch.save((kept[0].players.won, trainer.augment.signs), folder / f"{os.environ['RANK']}.pt")


def test_wins_and_signs_are_those_of_all(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(W), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, tmp_path],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(W)
    ]
    errors = [each.communicate(timeout=240)[1] for each in running]
    assert [each.returncode for each in running] == [0] * W, errors
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(W)]
    for won, signs in found:  # three real images of four are right: a process alone would say 1 or 0, and 1 or 0
        assert won.item() == 0 and signs.item() == 0.5


if __name__ == "__main__":
    process(Path(sys.argv[1]))
