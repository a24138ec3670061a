"""What each generative method costs: time of a step of discriminator or denoiser with it, as a multiple of one without.

    python benchmarks/generative.py [gan unet dit] [--only contrad repa] [--size 16 32] [--reps 21] [--json rows.json]

Steps are those of the jobs `contraux gan` and `contraux diffusion`, taken by their engines on the digits: augmented
views, forward passes, losses, metrics, backward, optimizer, moving averages. Every arm has a model of its own. In each
repetition every arm takes some steps next to its base, in an order that is drawn anew, and a ratio is of these; the
table gives the median and its 95 % interval by order statistics (the range below 6 repetitions). What is timed is time
of this thread, so that the machine's other work mostly is left out; on a GPU it is wall time between synchronisations.

gan: SNDCGAN's discriminator. A method that needs classes is compared with players that are told them. `alone` leaves
out the generator's passes; `step` has them, as the job does. `rows` are the images that the discriminator forwards, in
batches, with gradient + without (a momentum copy); where they are not 2, `at equal rows` compares with a base of a
larger batch that has as many.

unet, dit: the job's denoisers. time_infonce has pairs in its batches, and so has its base. repa aligns with a small CNN
of the images' own size. cdl sees all images of the batch, in every seventh repetition.

`--profile` says where the time of the chosen arms goes instead.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import hydra.utils
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from scipy import stats
from torch import nn
from torch.profiler import ProfilerActivity, profile

from contraux.clgen import attach
from contraux.clgen.diffusion import NoiseClassifier, Repa, denoiser
from contraux.clgen.diffusion.labels import predicted, takes_labels
from contraux.clgen.gan import ClassSupCon, ContraGAN, ReACGAN
from contraux.clgen.images import Images, images_of
from contraux.clgen.training_diffusion import Diffusion, dit, unet
from contraux.clgen.training_diffusion.batch import Drawer, Rows
from contraux.clgen.training_diffusion.engine import Engine as DenoiserEngine
from contraux.clgen.training_gan import sndcgan
from contraux.clgen.training_gan.draws import Draws
from contraux.clgen.training_gan.engine import Engine as GanEngine
from contraux.clgen.training_gan.engine import Players
from contraux.core.data import digits
from contraux.core.encoders import SmallCNN
from contraux.core.pairs import Outcome
from contraux.core.preset import option

GAN = ("contrad", "contragan", "reacgan", "insgen", "infomax", "real_fake_supcon", "class_supcon")
TOLD = {"contragan": ContraGAN, "reacgan": ReACGAN, "class_supcon": ClassSupCon}  # need players that are told classes
DIFFUSION = ("time_infonce", "ordinal_snr", "dispersive", "label_supcon", "repa", "contrastive_flow", "cdl")
SHARE = 0.25  # of the images of time_infonce's batches that are there twice
POINTS = 4  # of CDL, each two passes of the denoiser


class Clock:
    """Seconds of this thread, or on a GPU of the wall, once it has done what it was given."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"

    def __call__(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.thread_time()


class Arm(NamedTuple):
    """One thing that is timed.

    Attributes:
        name: in the table.
        base: the arm it is compared with.
        step: takes one.
        aside: returns the seconds so far that `alone` leaves out.
        rows: images that the model forwards in a step, with gradient and without.
        equal: the base arm of as many rows, where that is another one.
    """

    name: str
    base: str
    step: Callable[[], Any]
    aside: Callable[[], float]
    rows: tuple[int, int]
    equal: str | None = None


class Passes:
    """Watches a module and its copies: seconds in its forward passes, and the rows of them."""

    def __init__(self, module: nn.Module, clock: Clock | None = None) -> None:
        self.clock, self.begun, self.seconds, self.rows = clock, 0.0, 0.0, [0, 0]
        module.register_forward_pre_hook(self._begin)
        module.register_forward_hook(self._end)

    def __deepcopy__(self, _memo: dict[int, Any]) -> "Passes":
        return self

    def _begin(self, _module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        self.rows[not torch.is_grad_enabled()] += len(inputs[0])
        if self.clock is not None:
            self.begun = self.clock()

    def _end(self, *_: Any) -> None:
        if self.clock is not None:
            self.seconds += self.clock() - self.begun


def gan_arm(
    name: str, method: str | None, told: bool, batch: int, images: Images, width: int, augment: str, base: str,
    accelerator: Accelerator, clock: Clock,
) -> Arm:  # fmt: skip
    """A step of SNDCGAN's discriminator."""
    torch.manual_seed(0)
    classes = len(images.classes) if told else 0
    shape = images.tensor.shape[1:]
    generator, discriminator = sndcgan(size=shape[-1], channels=shape[0], classes=classes, width=width)
    counted = Passes(discriminator.body)
    auxiliary = None
    if method is not None:
        example: Any = (images.tensor[:2], torch.zeros(2, dtype=torch.long)) if told else images.tensor[:2]
        overrides = ["module.classes=10"] if method in ("contragan", "reacgan") else []
        overrides += [f"module.size={len(images.tensor) // 20}"] if method == "insgen" else []
        places = {"local": discriminator.taps["local"], "global": "body"} if method == "infomax" else "body"
        auxiliary = attach(discriminator, places, method, example=example, overrides=overrides)
    augmentation = hydra.utils.instantiate(option("gan/augment", augment), _convert_="all")
    players = Players(generator, discriminator, augmentation, auxiliary, 0.995).to(accelerator.device).train()
    made = Passes(players.generator, clock)
    trained = [*discriminator.parameters()]
    trained += [] if auxiliary is None else [weight for weight in auxiliary.parameters() if weight.requires_grad]
    adam = partial(torch.optim.Adam, lr=4e-4, betas=(0.5, 0.99))
    engine = GanEngine(
        accelerator, players, (adam(generator.parameters()), adam(trained)),
        hydra.utils.instantiate(option("gan/adversarial", "non_saturating"), _convert_="all"),
        Draws(0, batch, 0, 1, accelerator.device),
        weight=1.0, generator_weight=0.0, perturbation=0.15, conditional=told,
    )  # fmt: skip
    real, labels = (one[:batch].to(accelerator.device) for one in (images.tensor, images.labels))
    steps = iter(range(10**9))

    def step() -> None:
        engine.discriminator_step(next(steps), real, labels)

    step()
    counted.rows = [0, 0]
    step()
    with_gradient, without = counted.rows
    return Arm(name, base, step, lambda: made.seconds, (with_gradient, without))


def gan_arms(only: Iterable[str], images: Images, batch: int, width: int, augment: str, accelerator: Accelerator,
             clock: Clock) -> list[Arm]:  # fmt: skip
    """The arms of one size: bases first, those of larger batches too."""

    def make(name: str, method: str | None, told: bool, rows: int, base: str) -> Arm:
        return gan_arm(name, method, told, rows, images, width, augment, base, accelerator, clock)

    methods, bases = [], {}
    for method in only:
        told = method in TOLD
        base = "none, told classes" if told else "none"
        if base not in bases:
            bases[base] = make(base, None, told, batch, base)
        arm = make(method, method, told, batch, base)
        if sum(arm.rows) != 2 * batch:
            larger = f"none, batch {sum(arm.rows) // 2}"
            if larger not in bases:
                bases[larger] = make(larger, None, told, sum(arm.rows) // 2, "none")
            arm = arm._replace(equal=larger)
        methods.append(arm)
    return [*bases.values(), *methods]


class WithCDL(DenoiserEngine):
    """The denoiser's step with CDL on all of its images."""

    def _loss(self, rows: Rows) -> Outcome:
        outcome = super()._loss(rows)

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            given = None if rows.given is None else rows.given.repeat(2)
            return predicted(self.model, noisy, timesteps, given)

        alphas = self.process._alphas.to(rows.clean.device)  # type: ignore[attr-defined]
        cdl = NoiseClassifier(denoiser(predict, alphas), points=POINTS)
        return Outcome(outcome.loss + cdl(rows.clean).loss, outcome.metrics)


def denoiser_arm(
    name: str, objective: str | None, kind: str, share: float, batch: int, images: Images, base: str,
    accelerator: Accelerator,
) -> Arm:  # fmt: skip
    """A step of a denoiser."""
    torch.manual_seed(0)
    shape = tuple(images.tensor.shape[1:])
    model = {"unet": unet, "dit": dit}[kind](shape, False)
    counted = Passes(model.conv_in if kind == "unet" else model.pos_embed)
    auxiliary = None
    if objective == "repa":
        auxiliary = attach(model, objective=partial(Repa, encoder=SmallCNN(shape), hidden=256))
    elif objective not in (None, "contrastive_flow", "cdl"):
        auxiliary = attach(model, objective=objective)
    process = Diffusion()
    engine = (WithCDL if objective == "cdl" else DenoiserEngine)(
        accelerator, model, auxiliary, partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-4), process,
        weight=0.05, flow_weight=0.05 if objective == "contrastive_flow" else 0.0, snr_gamma=None, ema_decay=0.995,
        max_grad_norm=1.0, compile=False,
    )  # fmt: skip
    drawer = Drawer(
        images, process, batch_size=batch, share=share, label_dropout=0.1, labelled=takes_labels(model),
        conditional=False, seed=0,
    )  # fmt: skip
    drawn = [drawer(step, accelerator.device, slice(None)) for step in range(4)]
    steps = iter(range(10**9))

    def step() -> None:
        engine.update(drawn[next(steps) % len(drawn)], 1.0)

    step()
    counted.rows = [0, 0]
    step()
    with_gradient, without = counted.rows
    return Arm(name, base, step, lambda: 0.0, (with_gradient, without))


def denoiser_arms(only: Iterable[str], kind: str, images: Images, batch: int, accelerator: Accelerator) -> list[Arm]:
    """The arms of one denoiser: bases first."""
    bases, objectives = {}, []
    for objective in only:
        paired = objective == "time_infonce"
        base, share = ("none, with pairs", SHARE) if paired else ("none", 0.0)
        if base not in bases:
            bases[base] = denoiser_arm(base, None, kind, share, batch, images, base, accelerator)
        objectives.append(denoiser_arm(objective, objective, kind, share, batch, images, base, accelerator))
    return [*bases.values(), *objectives]


def measure(arms: list[Arm], reps: int, steps: int, clock: Clock) -> list[dict[str, Any]]:
    """One row an arm. Who is compared takes turns at once, every other time the other way round."""
    named = {arm.name: arm for arm in arms}
    found: dict[str, list[dict[str, tuple[float, float]]]] = {arm.name: [] for arm in arms}
    order, draw = list(arms), random.Random(0)
    for rep in range(reps):
        draw.shuffle(order)
        for arm in order:
            if arm.name != "cdl" or rep % 7 == 0:
                names = list(dict.fromkeys([arm.base, arm.name, *([arm.equal] if arm.equal else [])]))
                turns = names if rep % 2 else names[::-1]
                found[arm.name].append({name: seconds_of(named[name], steps, clock) for name in turns})

    def ratios(arm: Arm, base: str, which: int) -> list[float]:
        return interval([taken[arm.name][which] / taken[base][which] for taken in found[arm.name]])

    return [
        {
            "arm": arm.name,
            "rows": list(arm.rows),
            "step": ratios(arm, arm.base, 0),
            "alone": ratios(arm, arm.base, 1),
            "equal": None if arm.equal is None else ratios(arm, arm.equal, 1),
            "milliseconds": 1000 * statistics.median(taken[arm.name][0] for taken in found[arm.name]),
        }
        for arm in arms
    ]


def seconds_of(arm: Arm, steps: int, clock: Clock) -> tuple[float, float]:
    """Seconds of a step, all of it and without what is aside."""
    aside, start = arm.aside(), clock()
    for _ in range(steps):
        arm.step()
    whole = clock() - start
    return whole / steps, (whole - (arm.aside() - aside)) / steps


def interval(ratios: list[float]) -> list[float]:
    """Median and its 95 % interval: order statistics, or the range of too few."""
    ordered = sorted(ratios)
    out = max(int(stats.binom.ppf(0.025, len(ordered), 0.5)) - 1, 0)
    return [statistics.median(ordered), ordered[out], ordered[-1 - out]]


def show(rows: list[dict[str, Any]], title: str) -> None:
    """Print the table of one host."""
    is_gan = title.startswith("gan")
    ratios = ("alone", "step", "equal") if is_gan else ("step",)
    named = {"alone": "alone / without", "step": "step / without", "equal": "alone, at equal rows"}
    table = Table("arm", "rows", *(named[one] for one in ratios), "ms a step", title=title)
    for row in rows:
        cells = ["" if row[one] is None else "{:.2f} [{:.2f}, {:.2f}]".format(*row[one]) for one in ratios]
        with_gradient, without = row["rows"]
        table.add_row(
            row["arm"], f"{with_gradient:g}" + (f" + {without:g}" if without else ""), *cells,
            f"{row['milliseconds']:.1f}",
        )  # fmt: skip
    Console(width=120).print(table)


def profiled(arms: list[Arm], steps: int) -> None:
    """Print where the time of each arm goes."""
    for arm in arms:
        with profile(activities=[ProfilerActivity.CPU], record_shapes=False) as found:
            for _ in range(steps):
                arm.step()
        print(arm.name)
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45))


def run(host: str, size: int, arguments: argparse.Namespace, accelerator: Accelerator) -> list[dict[str, Any]]:
    """Measure and print one table, and return its rows."""
    images, clock = images_of(digits("train"), size), Clock(accelerator.device)
    batch = arguments.batch_size or (64 if host == "gan" else 32)
    only = [name for name in (GAN if host == "gan" else DIFFUSION) if name in (arguments.only or (name,))]
    if not only:
        return []
    if host == "gan":
        arms = gan_arms(only, images, batch, arguments.width, arguments.augment, accelerator, clock)
    else:
        arms = denoiser_arms(only, host, images, batch, accelerator)
    steps = arguments.steps or max(1, round(0.1 / seconds_of(arms[0], 2, clock)[0]))
    if arguments.profile:
        profiled(arms, steps)
        return []
    rows = measure(arms, arguments.reps, steps, clock)
    for row in rows:
        row |= {"host": host, "size": size, "batch_size": batch, "steps": steps}
        row["rows"] = [count / batch for count in row["rows"]]
    made = f"width {arguments.width}, {arguments.augment}, " if host == "gan" else ""
    timed = "one thread" if arguments.device == "cpu" else "one GPU"
    title = f"{host}, {size} pixels, {made}batch {batch}, {timed}, {arguments.reps} repetitions of {steps} steps"
    show(rows, title)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", nargs="*", metavar="gan|unet|dit", help="default: all three")
    parser.add_argument("--only", nargs="+", choices=[*GAN, *DIFFUSION], help="methods and objectives")
    parser.add_argument(
        "--size", type=int, nargs="+", help="pixels; default: 16 and 32 for gan, 8 and 16 for denoisers"
    )
    parser.add_argument("--batch-size", type=int, help="default, as the jobs': 64 for gan, 32 for denoisers")
    parser.add_argument("--width", type=int, default=32, help="of SNDCGAN at full size")
    parser.add_argument("--augment", choices=("affine", "diffaug"), default="affine", help="of gan")
    parser.add_argument("--reps", type=int, default=21)
    parser.add_argument(
        "--steps", type=int, help="of each arm in a repetition; default: a tenth of a second of the base"
    )
    parser.add_argument("--quick", action="store_true", help="3 repetitions of 1 step: to see that it runs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--profile", action="store_true", help="where the time goes, in the place of ratios")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    hosts = arguments.hosts or ["gan", "unet", "dit"]
    if not {*hosts} <= {"gan", "unet", "dit"}:
        parser.error(f"hosts are gan, unet and dit, got {' '.join(hosts)}")
    if arguments.quick:
        arguments.reps, arguments.steps = 3, 1
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=arguments.device == "cpu")
    rows: list[dict[str, Any]] = []
    for host in hosts:
        for size in arguments.size or ((16, 32) if host == "gan" else (8, 16)):
            rows += run(host, size, arguments, accelerator)
    if arguments.json and rows:
        machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        arguments.json.write_text(json.dumps({**machine, "reps": arguments.reps, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
