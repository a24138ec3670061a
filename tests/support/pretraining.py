"""A small data set, views and encoder without batch statistics, for tests of the trainer."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from contraux.core.data import digits
from contraux.core.encoders import SmallCNN
from contraux.core.preset import option
from contraux.core.pretraining import Method, Trainer
from contraux.core.views import TwoViews


class Brightness:
    """`x * (0.5 + u)`, normalised: a view whose numbers are one uniform one an image."""

    draws = 1

    def __init__(self, shape, mean, std):
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))

    def apply(self, x, u):
        return (x.float() / 255 * (0.5 + u[:, :, None, None]) - self.mean) / self.std

    def __call__(self, x, generator):
        return self.apply(x, torch.rand(len(x), 1, generator=generator))


def make_method(name: str = "simclr", norm: str = "group", **changes: Any) -> Method:
    torch.manual_seed(0)
    config = option("method", name)
    if "batch_norm" in config.projection:
        config.projection.batch_norm = norm == "batch"
    for key, value in changes.items():
        config[key] = value
    return instantiate(config, _convert_="all")(SmallCNN((1, 8, 8), norm=norm))


def make_trainer(folder: Path, method: Method | None = None, **settings: Any) -> Trainer:
    data = digits("train")
    views = TwoViews(Brightness, shape=data.shape, mean=data.mean, std=data.std)
    folder.mkdir(exist_ok=True)
    settings = {
        "epochs": 2, "batch_size": 128, "warmup": 0.25, "device": "cpu", "progress_bar": False, "log_every": 4,
    } | settings  # fmt: skip
    method = make_method() if method is None else method
    optimizer = settings.pop("optimizer", partial(torch.optim.AdamW, lr=1e-3))
    return Trainer(method, data, views, optimizer, folder, **settings)
