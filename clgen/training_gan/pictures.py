"""What a run shows of itself: samples of the same latents over training, and the way from one latent to another."""

from pathlib import Path

import torch
from torch import Tensor

from ..images import Images, save_grid
from .engine import Players

COLUMNS, ROWS, PATHS, STEPS = 10, 6, 6, 10


class Pictures:
    """Draws samples of the averaged generator, always of the same latents.

    Args:
        images: the data.
        players: whose average generates.
        conditional: whether it is given labels; columns then are classes.
        seed: of the latents.
        folder: where `samples/step_*.png`, `samples.png` and `interpolation.png` go.
    """

    def __init__(self, images: Images, players: Players, conditional: bool, seed: int, folder: Path) -> None:
        self.players, self.folder, self.drawable = players, folder, images.tensor.shape[1] in (1, 3)
        self.classes = len(images.classes) if conditional else 0
        generator = torch.Generator().manual_seed(seed)
        self.latents = torch.randn(COLUMNS * ROWS, int(players.generator.latent), generator=generator)  # type: ignore[arg-type]
        self.shown = images.tensor[torch.randperm(len(images.tensor), generator=generator)[: COLUMNS * ROWS]]

    def real(self) -> None:
        """Write `real.png`, a grid of the data."""
        if self.drawable:
            save_grid(self.shown, self.folder / "real.png", COLUMNS)

    def samples(self, step: int) -> None:
        """Write `samples/step_000200.png` and, the same, `samples.png`."""
        if self.drawable:
            grid = self._generated(self.latents, self._labels(len(self.latents), COLUMNS))
            for path in (self.folder / "samples" / f"step_{step:06d}.png", self.folder / "samples.png"):
                save_grid(grid, path, COLUMNS)

    def interpolation(self) -> None:
        """Write `interpolation.png`: in each row the images between two latents, on the arc between them."""
        if not self.drawable:
            return
        first, second = self.latents[:PATHS], self.latents[PATHS : 2 * PATHS]
        between = spherical(first, second, torch.linspace(0, 1, STEPS)).flatten(0, 1)
        labels = self._labels(PATHS, COLUMNS)
        images = self._generated(between, None if labels is None else labels.repeat_interleave(STEPS))
        save_grid(images, self.folder / "interpolation.png", STEPS)

    def _labels(self, count: int, columns: int) -> Tensor | None:
        if not self.classes:
            return None
        return torch.arange(count) % columns % self.classes

    @torch.no_grad()
    def _generated(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        average = self.players.average
        device = next(average.parameters()).device
        average.eval()
        try:
            return average(latents.to(device), *(() if labels is None else (labels.to(device),))).float().cpu()
        finally:
            average.train()


def spherical(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Return latents on the arc between two of each row (Shoemake 1985; for GANs White 2016, https://arxiv.org/abs/1609.04468).

        (sin((1 - t) w) first + sin(t w) second) / sin w,    w the angle between them

    Args:
        first: `(N, Z)`, at t = 0.
        second: `(N, Z)`, at t = 1, neither parallel nor opposite.
        share: `(T,)` of t.

    Returns:
        `(N, T, Z)`.
    """
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=1)
    angle = cosine.clamp(-1, 1).arccos().view(-1, 1, 1)
    t = share.view(1, -1, 1)
    ways = torch.sin((1 - t) * angle) * first[:, None] + torch.sin(t * angle) * second[:, None]
    return ways / torch.sin(angle)
