"""What the batched views are worth downstream, beside the same policy made of torchvision's transforms.

    python benchmarks/views_downstream.py [--seeds 5] [--epochs 40] [--threads 1] [--folder runs/views_downstream]

Every arm is `contraux pretrain` on scikit-learn's digits (SimCLR, small CNN; all defaults but the views), with the same
seeds, hence the same first weights and the same order of examples, and then `contraux evaluate` with the probes of
`make few-shot`:

* contraux: `views=digits`, a batch at a time;
* torchvision, each image: the policy of `configs/views/digits.yaml` as torchvision transforms of single uint8 images;
* torchvision on the batch: the same transforms called once on a whole batch, whose images then share their parameters.

Differences are to contraux, paired by seed, with the 95 % bootstrap interval of `contraux.core.paired`. Runs that are
already in the folder are kept, so that a benchmark that was stopped goes on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from contraux.core.paired import paired
from contraux.core.preset import option

ARMS = {"contraux": "digits", "torchvision, each image": "each_image", "torchvision on the batch": "on_the_batch"}
MEASURES = {"linear_1_shot": "1 label", "linear_5_shot": "5 labels", "linear": "all labels", "knn": "neighbours"}


class TorchvisionViews:
    """Two views of every image by torchvision's transforms, with the parameters of `configs/views/digits.yaml`.

    Args:
        each: one call for each image; otherwise one for the batch.
        shape: `(C, H, W)` of the images.
        mean: of the data, one number a channel.
        std: likewise.
    """

    def __init__(self, each: bool, *, shape: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        steps = option("views", "digits").first.steps
        crop, jitter = steps.crop, steps.jitter
        assert set(steps) == {"crop", "jitter"} and crop.size is None and crop.flip == 0
        self.each = each
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(shape[-2:], scale=tuple(crop.scale), ratio=tuple(crop.ratio), antialias=True),
                v2.RandomApply([v2.ColorJitter(brightness=jitter.brightness, contrast=jitter.contrast)], jitter.p),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(mean), list(std)),
            ]
        )

    def __call__(
        self, x: Tensor, generator: torch.Generator, start: int = 0, total: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return two views of uint8 images `(N, C, H, W)`; torchvision draws from the global generator."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            return self._view(x), self._view(x)

    def _view(self, x: Tensor) -> Tensor:
        return torch.stack([self.transform(one) for one in x]) if self.each else self.transform(x)


def contraux(*words: str, threads: int) -> None:
    """Run one job of the command line, which finds this file as a module."""
    here = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": str(threads)}
    line = [sys.executable, "-m", "contraux", *words, f"threads={threads}"]
    subprocess.run(line, env=environment, check=True, stdout=subprocess.DEVNULL)


def write_configs(folder: Path) -> None:
    """Write the torchvision arms as options of the group `views`."""
    (folder / "views").mkdir(parents=True, exist_ok=True)
    for name, each in (("each_image", "true"), ("on_the_batch", "false")):
        text = f"_target_: {Path(__file__).stem}.{TorchvisionViews.__name__}\n_partial_: true\neach: {each}\n"
        (folder / "views" / f"{name}.yaml").write_text(text)


def train(folder: Path, seeds: int, epochs: int, threads: int) -> None:
    """Pretrain every arm with every seed, arms taking turns, and evaluate each arm over its seeds."""
    configs = folder / "configs"
    write_configs(configs)
    for seed in range(seeds):
        for views in ARMS.values():
            run = folder / views / f"seed_{seed}"
            if not (run / "encoder").exists():
                words = [f"views={views}", f"seed={seed}", f"epochs={epochs}", "pictures=false", "evaluation=false"]
                contraux("pretrain", "--config-dir", str(configs), *words, f"hydra.run.dir={run}", threads=threads)
                print(f"{views}, seed {seed}: {seconds(run):.0f} s", file=sys.stderr, flush=True)
    for views in ARMS.values():
        runs = ",".join(str(folder / views / f"seed_{seed}") for seed in range(seeds))
        words = ["trusted=true", *(f"measures.{name}=null" for name in ("fine_tune", "geometry", "episodes"))]
        words += ["random=false", "raw=false", "picture=null"]
        contraux("evaluate", f"checkpoint=[{runs}]", f"folder={folder / views / 'evaluation'}", *words, threads=threads)


def seconds(run: Path) -> float:
    return float(json.loads((run / "result.json").read_text())["seconds"])


def report(folder: Path, seeds: int) -> str:
    """Return the table: mean ± sd of each arm, and its paired difference to contraux."""
    found, times = {}, {}
    for arm, views in ARMS.items():
        figures = json.loads((folder / views / "evaluation" / "evaluation.json").read_text())["arms"]["checkpoint"]
        found[arm] = {name: {int(seed): value for seed, value in figures[name]["by_seed"].items()} for name in MEASURES}
        times[arm] = [seconds(folder / views / f"seed_{seed}") for seed in range(seeds)]
    lines = [
        f"| test accuracy, % | {' | '.join(MEASURES.values())} | seconds a run |",
        "|---" * (len(MEASURES) + 2) + "|",
    ]
    for arm, own in found.items():
        cells = [spread(list(own[name].values()), 1) for name in MEASURES]
        lines.append(f"| {arm} | {' | '.join(cells)} | {min(times[arm]):.0f}-{max(times[arm]):.0f} |")
    ours, *others = found
    for arm in others:
        differences = (paired(found[ours][name], found[arm][name]) for name in MEASURES)
        cells = [f"{difference}, {difference.up}/{difference.pairs} up" for difference in differences if difference]
        lines.append(f"| {ours} − {arm}, paired | {' | '.join(cells)} | |")
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/views_downstream"))
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    train(folder, arguments.seeds, arguments.epochs, arguments.threads)
    table = report(folder, arguments.seeds)
    (folder / "table.md").write_text(table + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
