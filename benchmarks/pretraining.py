"""Images a second of the trainer beside lightly's SimCLR with its own transforms: same encoder, data, batch and cores.

lightly is used as its tutorial does: a data set of PIL images with `SimCLRTransform`, torch's `DataLoader`, its
projection head and NT-Xent, AdamW. It gets the better of no worker and one worker for each thread. Arms take turns.

    python benchmarks/pretraining.py --threads 2 --reps 3
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import hydra.utils
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from contraux.core.data import digits
from contraux.core.data.memory import InMemory
from contraux.core.encoders import ResNet, SmallCNN
from contraux.core.preset import option
from contraux.core.pretraining import Trainer

BATCH = 256


def images(size: int) -> InMemory:
    """The digits, grey at their own size, or as RGB images of a larger one."""
    data = digits("train")
    if size == 8:
        return data
    inputs = nn.functional.interpolate(data.inputs.float(), (size, size), mode="bilinear").round().byte()
    return InMemory(inputs.repeat(1, 3, 1, 1), data.labels, data.classes, (list(data.mean) * 3, list(data.std) * 3))


class Pictures(Dataset):
    def __init__(self, data: InMemory, transform: SimCLRTransform) -> None:
        arrays = data.inputs.permute(0, 2, 3, 1).numpy()
        self.images = [Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x) for x in arrays]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return self.transform(self.images[index])


def lightly(data: InMemory, make_encoder, steps: int, workers: int) -> float:
    size = data.shape[-1]
    torch.manual_seed(0)
    encoder = make_encoder(data.shape)
    head = SimCLRProjectionHead(encoder.out_features, 512, 128)
    criterion = NTXentLoss(temperature=0.2)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)
    transform = SimCLRTransform(
        input_size=size, gaussian_blur=0.0, normalize={"mean": list(data.mean), "std": list(data.std)}
    )
    loader = DataLoader(
        Pictures(data, transform), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip
    done, start = 0, 0.0
    while True:
        for first, second in loader:
            loss = criterion(head(encoder(first)), head(encoder(second)))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done == 1:
                start = time.perf_counter()  # workers are running
            if done == steps + 1:
                return steps * BATCH / (time.perf_counter() - start)


def contraux(data: InMemory, make_encoder, steps: int, views: str) -> float:
    torch.manual_seed(0)
    method = hydra.utils.instantiate(option("method", "simclr"), _convert_="all")(make_encoder(data.shape))
    two = hydra.utils.instantiate(option("views", views), _convert_="all")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            method, data, two(shape=data.shape, mean=data.mean, std=data.std), partial(torch.optim.AdamW, lr=1e-3),
            Path(folder), epochs=-(-steps // (len(data) // BATCH)), batch_size=BATCH, progress_bar=False, device="cpu",
        )  # fmt: skip
        return trainer.fit().images_per_second


CASES = {
    "small CNN, 8 px": (8, SmallCNN, "digits", 80),
    "small CNN, 32 px": (32, SmallCNN, "cifar", 12),
    "ResNet-18 (CIFAR stem), 32 px": (32, partial(ResNet, name="resnet18", stem="cifar"), "cifar", 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reps", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| encoder | contraux img/s | lightly img/s | ratio, median (range) |\n|---|---|---|---|")
    for name, (size, make_encoder, views, steps) in CASES.items():
        data = images(size)
        workers = (0, arguments.threads)
        lightly(data, make_encoder, 1, 0), contraux(data, make_encoder, 1, views)
        rounds = [
            (contraux(data, make_encoder, steps, views), max(lightly(data, make_encoder, steps, w) for w in workers))
            for _ in range(arguments.reps)
        ]
        ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratios = sorted(one / other for one, other in rounds)
        print(
            f"| {name} | {ours:.0f} | {theirs:.0f} | {statistics.median(ratios):.1f} "
            f"({ratios[0]:.1f}-{ratios[-1]:.1f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
