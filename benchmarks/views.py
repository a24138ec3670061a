"""Augmented views on one core, images a second, side by side with the peers.

    python benchmarks/views.py [--only 32] [--seconds 30]

The policy is MoCo v2's (random resized crop of 0.2 to 1 of the area, flip, colour jitter, grayscale, Gaussian blur),
without blur at 32 pixels; uint8 images in, a normalised float32 batch out. Every implementation makes the batch again
and again in random order for the seconds given (at least 5 rounds), with one thread. Time is that of the thread on the
core, so that other work on the machine counts less; figures are medians and ranges of the rounds. "torchvision on the
batch" gives all images of a batch the same parameters and stands here for its speed only.
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from contraux.core.views import ColorJitter, GaussianBlur, ImageAugmentation, RandomGrayscale, RandomResizedCrop

CASES = {"32": (32, 32, 256), "96": (96, 96, 64), "224": (224, 224, 16), "256 to 224": (256, 224, 16)}
"""Name -> side of the source, side of the view, batch."""
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SCALE = (0.2, 1.0)


def images(n: int, side: int) -> Tensor:
    """Return smooth random images with some noise: hue and blur meet all colours."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return (smooth + torch.randn(n, 3, side, side) * 0.03).clamp(0, 1).mul(255).to(torch.uint8)


def contraux_view(source: int, side: int) -> ImageAugmentation:
    steps = {
        "crop": RandomResizedCrop(size=side, scale=SCALE),
        "jitter": ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        "grayscale": RandomGrayscale(0.2),
        "blur": GaussianBlur(p=0.5) if side > 32 else None,
    }
    return ImageAugmentation(steps, shape=(3, source, source), mean=MEAN, std=STD)


def torchvision_view(side: int, *first: v2.Transform) -> v2.Compose:
    blur = [v2.RandomApply([v2.GaussianBlur(side // 20 * 2 + 1, (0.1, 2.0))], 0.5)] if side > 32 else []
    return v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=SCALE, antialias=True),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            *blur,
            v2.RandomHorizontalFlip(),
            *first,
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def kornia_view(side: int) -> Callable[[Tensor], Tensor]:
    import kornia.augmentation as K

    width = side // 20 * 2 + 1
    blur = [K.RandomGaussianBlur((width, width), (0.1, 2.0), p=0.5)] if side > 32 else []
    return K.ImageSequential(
        K.RandomResizedCrop((side, side), scale=SCALE),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        *blur,
        K.RandomHorizontalFlip(p=0.5),
        K.Normalize(MEAN, STD),
    )


def implementations(source: int, side: int, n: int) -> dict[str, Callable[[], Tensor]]:
    x = images(n, source)
    pictures = [v2.functional.to_pil_image(one) for one in x]
    ours, generator = contraux_view(source, side), torch.Generator().manual_seed(0)
    of_pil, of_tensor = torchvision_view(side, v2.ToImage()), torchvision_view(side)
    made = {
        "contraux": lambda: ours(x, generator),
        "torchvision, each image, PIL": lambda: torch.stack([of_pil(one) for one in pictures]),
        "torchvision, each image, tensor": lambda: torch.stack([of_tensor(one) for one in x]),
        "torchvision on the batch": lambda: of_tensor(x),
    }
    try:
        kornia = kornia_view(side)
        made["kornia on the batch"] = lambda: kornia(x.float().div_(255))
    except ImportError:
        print("kornia is not installed: pip install 'contraux[bench]'", file=sys.stderr)
    return made


def rates(made: dict[str, Callable[[], Tensor]], n: int, seconds: float) -> dict[str, list[float]]:
    for make in made.values():
        make()
    found: dict[str, list[float]] = {name: [] for name in made}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(found["contraux"]) < 5:
        for name in random.sample(list(made), len(made)):
            began, done = time.thread_time(), 0
            while time.thread_time() - began < 0.1 or done == 0:
                made[name]()
                done += n
            found[name].append(done / (time.thread_time() - began))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", help="file for all rates")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("\n| px (batch) | implementation | img/s, median (range) | contraux is faster by |\n|---|---|---|---|")
    everything = {}
    for case in arguments.only or CASES:
        source, side, n = CASES[case]
        found = everything[case] = rates(implementations(source, side, n), n, arguments.seconds)
        ours = statistics.median(found["contraux"])
        for name, each in found.items():
            median = statistics.median(each)
            ratio = "" if name == "contraux" else f"{ours / median:.1f}"
            print(f"| {case} ({n}) | {name} | {median:.0f} ({min(each):.0f}-{max(each):.0f}) | {ratio} |", flush=True)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(everything, file)


if __name__ == "__main__":
    main()
