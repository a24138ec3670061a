"""Training of a small classifier. Shape legend: B images of a batch, C channels, H x W size."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.check import number, whole
from ..images import Images
from .extractor import Extracted


class Classifying(Protocol):
    """An `nn.Module` that returns logits too."""

    def __call__(self, images: Tensor) -> Extracted:
        """Return features and logits of images in [-1, 1]."""
        ...


Module = TypeVar("Module", bound=nn.Module)


def fit(
    make: Callable[[], Module],
    train: Images,
    test: Images | None,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> tuple[Module, float | None]:
    """Train a classifier by cross-entropy, and return it frozen in eval mode with its accuracy on held-out images.

    AdamW with one cycle of the learning rate (Smith and Topin 2017, arXiv:1708.07120); images are shifted by up to an
    eighth of their size in each direction, their edges repeated. Global random state is afterwards what it was.

    Args:
        make: builds the module, whose weights the seed decides.
        train: images with labels; those with a label < 0 are left out.
        test: images to hold out; None: there are none, and no accuracy.
        steps: of the optimizer, >= 1.
        batch_size: >= 2, at most the number of training images.
        learning_rate: the highest of the cycle, > 0.
        weight_decay: of AdamW, >= 0.
        seed: integer >= 0.
        device: where it is trained; it comes back to the CPU.

    Raises:
        ValueError: a number out of range, or a loss that is not finite.
    """
    steps, size = whole("steps", steps, 1), whole("batch_size", batch_size, 2)
    number("learning_rate", learning_rate, 0, above=True)
    number("weight_decay", weight_decay, 0)
    random = torch.Generator().manual_seed(whole("seed", seed))
    known = torch.nonzero(train.labels >= 0)[:, 0]
    size = min(size, len(known))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make().to(device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1)
    order = known[:0]
    for step in range(steps):
        if len(order) < size:
            order = torch.cat([order, known[torch.randperm(len(known), generator=random)]])
        rows, order = order[:size], order[size:]
        logits = module(shifted(train.tensor[rows], random).to(device)).logits
        loss = functional.cross_entropy(logits, train.labels[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 and not torch.isfinite(loss):
            raise ValueError(f"the loss of an extractor must stay finite, got {loss.item()} at step {step}")
    module.cpu().eval().requires_grad_(False)
    return module, None if test is None or not (test.labels >= 0).any() else accuracy(module, test)


def accuracy(module: nn.Module, images: Images) -> float:
    """Return the share of labelled images that the module, in eval mode, gets right."""
    known = torch.nonzero(images.labels >= 0)[:, 0]
    with torch.no_grad():
        right = [(module(images.tensor[rows]).logits.argmax(1) == images.labels[rows]) for rows in known.split(512)]
    return float(torch.cat(right).float().mean())


def shifted(images: Tensor, random: torch.Generator) -> Tensor:
    """Return images `(B, C, H, W)`, each moved by up to an eighth of its size in each direction, edges repeated."""
    count, _, height, width = images.shape
    pad = max(1, min(height, width) // 8)
    padded = functional.pad(images, (pad,) * 4, mode="replicate")
    down, right = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=random)
    rows = (down + torch.arange(height))[:, :, None]
    columns = (right + torch.arange(width))[:, None, :]
    return padded[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2).contiguous()
