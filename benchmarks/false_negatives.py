"""Samplers on a made problem with planted false negatives, paired over the same seeds, by a linear probe.

    python benchmarks/false_negatives.py [--seeds 5] [--only hardest --only hardness] [--out results.md]

An instance is a class prototype with a deviation of its own, and a style that has nothing to do with the class. A view
of it is a random nonlinear map of these and of as much nuisance, drawn for each view. There are 10 even classes, so
that of the 255 other keys of a batch about 25 are of the query's class: false negatives, of which the encoder is told
nothing. It learns from views alone; then a logistic regression on its frozen features of one view of each instance,
with 5 labels a class, classifies instances held out.

Every arm of a seed has the same data, the same initial weights, the same batches and views; the arms take turns within
a seed. Each is set once, by the reason given at ARMS; none was tuned.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import bootstrap
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from contraux.core import Contrastive, Pairs
from contraux.core.encoders import MLP, ProjectionHead
from contraux.core.samplers import (
    Bandit,
    Bayesian,
    CancelByGuide,
    CancelByLabel,
    CancelTopK,
    Debiased,
    Hardest,
    Hardness,
    InBatch,
    Random,
    Sampler,
)
from contraux.core.similarity import cosine

CLASSES, CONTENT, STYLE, NUISANCE, INPUT, FEATURES = 10, 8, 8, 16, 64, 32
TRAIN, TEST, BATCH, STEPS, TEMPERATURE = 4096, 4096, 256, 800, 0.2
LABELS, DRAWS = 5, 10  # labels a class, and how often they are drawn anew
FALSE = (BATCH - 1) // CLASSES  # false negatives to expect for each query

ARMS: dict[str, tuple[Callable[[int], Sampler], str]] = {
    "random": (lambda seed: Random(share=0.5, seed=seed), "half of the negatives, drawn at random: the arm to beat"),
    "in_batch": (lambda _: InBatch(), "all negatives"),
    "hardest": (lambda _: Hardest(), "the default k, 16"),
    "hardness": (lambda _: Hardness(temperature=TEMPERATURE), "the default beta 1, in the middle of the paper's range"),
    "debiased": (lambda _: Debiased(1 / CLASSES, TEMPERATURE), "the true share of false negatives"),
    "cancel_by_label": (lambda _: CancelByLabel(), "an oracle: it is told the classes"),
    "cancel_by_guide": (lambda _: CancelByGuide(), "the paper's margin 0; guide: the seed's in_batch encoder, frozen"),
    "cancel_top_k": (lambda _: CancelTopK(FALSE), "as many as there are false negatives to expect"),
    "bandit": (lambda seed: Bandit(**LEARNING, seed=seed), "default arms, 31 decisions"),
    "bayesian": (lambda seed: Bayesian(**LEARNING, seed=seed), "default ranges, 31 decisions"),
}
LEARNING: dict[str, Any] = {"interval": 20, "warmup": STEPS // 4, "temperature": TEMPERATURE}
"""Intervals short enough for a few dozen decisions, after a quarter of the training."""


class World(NamedTuple):
    """One seed's problem.

    Attributes:
        latent: `(TRAIN, CONTENT + STYLE)` content and style of the instances to learn from.
        label: their classes.
        test: `(TEST, INPUT)` a view of each instance held out.
        test_label: their classes.
        first, second: matrices of the random map.
    """

    latent: Tensor
    label: Tensor
    test: Tensor
    test_label: Tensor
    first: Tensor
    second: Tensor

    def views(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return a view of each of these instances."""
        return view(self.latent[rows], self.first, self.second, generator)


def view(latent: Tensor, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
    nuisance = torch.randn(len(latent), NUISANCE, generator=generator)
    return torch.tanh(torch.cat((latent, nuisance), 1) @ first) @ second


def make_world(seed: int) -> World:
    generator = torch.Generator().manual_seed(10_000 + seed)
    draw = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
    prototypes = draw(CLASSES, CONTENT)
    wide = CONTENT + STYLE + NUISANCE
    first, second = draw(wide, 128) * 2 / wide**0.5, draw(128, INPUT) / 128**0.5
    label, test_label = torch.arange(TRAIN) % CLASSES, torch.arange(TEST) % CLASSES
    latent, test = (
        torch.cat((prototypes[each] + DEVIATION * draw(len(each), CONTENT), draw(len(each), STYLE)), 1)
        for each in (label, test_label)
    )
    return World(latent, label, view(test, first, second, generator), test_label, first, second)


DEVIATION = 0.5  # of an instance from its prototype, where prototypes, style and nuisance have standard deviation 1


@dataclass
class Result:
    """What one run ended with.

    Attributes:
        probe: accuracy in % with LABELS labels a class, the mean of DRAWS draws.
        full: accuracy in % with the labels of all training instances.
        matched: share in % of the queries of fresh batches whose own other view is the most similar key: what the
            loss asks for, and what the adaptive samplers are rewarded for.
        false_weight: share in % of the weight of the negatives that lies on false ones, in those batches.
        seconds: of the training.
        encoder: the trained encoder.
    """

    probe: float
    full: float
    matched: float
    false_weight: float
    seconds: float
    encoder: nn.Module


def probe(encoder: nn.Module, world: World, labels: int | None, draw: int = 0) -> float:
    """Return the accuracy in % on held-out instances of a logistic regression on frozen features."""
    with torch.no_grad():
        seen = world.views(torch.arange(TRAIN), torch.Generator().manual_seed(1))
        train, test = encoder(seen).numpy(), encoder(world.test).numpy()
    classes = world.label.numpy()
    if labels is not None:
        rng = np.random.default_rng(draw)
        chosen = np.concatenate([rng.choice(np.flatnonzero(classes == c), labels, False) for c in range(CLASSES)])
        train, classes = train[chosen], classes[chosen]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return 100 * model.fit(train, classes).score(test, world.test_label.numpy())


def make_encoder(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return MLP(INPUT, [128, 128], FEATURES)


def train(sampler: Sampler, world: World, seed: int, guide: nn.Module | None) -> Result:
    encoder = make_encoder(seed)
    objective = Contrastive(
        FEATURES,
        projection=lambda dim: ProjectionHead(dim, hidden=64, out=32),
        sampler=sampler,
        temperature=TEMPERATURE,
    )
    optimizer = torch.optim.AdamW([*encoder.parameters(), *objective.parameters()], lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    start = time.process_time()
    for _ in range(STEPS):
        outcome = objective(batch(world, encoder, guide, generator))
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
    seconds = time.process_time() - start
    few = [probe(encoder, world, LABELS, draw) for draw in range(DRAWS)]
    full = probe(encoder, world, None)
    return Result(statistics.mean(few), full, *after(objective, encoder, world, guide, generator), seconds, encoder)


def batch(world: World, encoder: nn.Module, guide: nn.Module | None, generator: torch.Generator) -> Pairs:
    rows = torch.randperm(TRAIN, generator=generator)[:BATCH]
    first, second = (world.views(rows, generator) for _ in range(2))
    context = {"label": world.label[rows], "key_label": world.label[rows]}
    if guide is not None:
        with torch.no_grad():
            context |= {"guide": guide(first), "key_guide": guide(second)}
    return Pairs(encoder(first), encoder(second), torch.arange(BATCH), None, context)


@torch.no_grad()
def after(
    objective: Contrastive, encoder: nn.Module, world: World, guide: nn.Module | None, generator: torch.Generator
) -> tuple[float, float]:
    """Return `matched` and `false_weight` of 16 fresh batches."""
    objective.eval()
    itself = torch.eye(BATCH, dtype=torch.bool)
    matched, on_false, on_all = 0.0, 0.0, 0.0
    for _ in range(16):
        query, key, positive, _, context = batch(world, encoder, guide, generator)
        similarity = cosine(objective.projection(query), objective.projection(key))
        found = objective.sampler(similarity, positive, None, context).weights
        weights = (torch.ones(BATCH, BATCH) if found is None else found).masked_fill(itself, 0.0)
        matched += (similarity.argmax(1) == positive).float().mean().item()
        on_false += weights[context["label"][:, None] == context["key_label"]].sum().item()
        on_all += weights.sum().item()
    return 100 * matched / 16, 100 * on_false / on_all


def interval(differences: list[float]) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of their mean."""
    if len(set(differences)) < 2:
        return differences[0], differences[0]
    found = bootstrap((differences,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}"  # no -0.0


def table(results: Mapping[str, list[Result]]) -> list[list[str]]:
    rows = []
    base = [one.probe for one in results["random"]]
    for name, runs in results.items():
        few = [one.probe for one in runs]
        gains = [one - other for one, other in zip(few, base, strict=True)]
        low, high = interval(gains)
        difference = "" if name == "random" else f"{signed(statistics.mean(gains))} [{signed(low)}, {signed(high)}]"
        up = "" if name == "random" else f"{sum(gain > 0 for gain in gains)}/{len(gains)}"
        spread = statistics.stdev(few) if len(few) > 1 else 0.0
        full, matched, false, seconds = (statistics.mean(getattr(one, field) for one in runs) for field in FIELDS)
        rows.append(
            [
                name,
                f"{statistics.mean(few):.1f} ± {spread:.1f}",
                difference,
                up,
                f"{full:.1f}",
                f"{matched:.1f}",
                f"{false:.1f}",
                f"{seconds:.1f}",
            ]
        )
    return rows


FIELDS = ("full", "matched", "false_weight", "seconds")
COLUMNS = [
    "arm",
    "few labels %",
    "difference to random [95 %]",
    "seeds up",
    "all labels %",
    "matched %",
    "false weight %",
    "CPU s",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--only", action="append", choices=list(ARMS), help="this arm, random and in_batch; again for more"
    )
    parser.add_argument("--out", type=Path, help="write the table as Markdown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in ARMS if options.only is None or name in (*options.only, "random", "in_batch")]
    results: dict[str, list[Result]] = {name: [] for name in names}
    untrained, raw = [], []
    console = Console()
    for seed in range(options.first, options.first + options.seeds):
        world = make_world(seed)
        few = range(DRAWS)
        untrained.append(statistics.mean(probe(make_encoder(seed), world, LABELS, draw) for draw in few))
        raw.append(statistics.mean(probe(nn.Identity(), world, LABELS, draw) for draw in few))
        turns = sorted(names, key=lambda name: (name != "in_batch", (names.index(name) + seed) % len(names)))
        for name in turns:  # in_batch first, because its encoder is the guide
            guide = results["in_batch"][-1].encoder if name == "cancel_by_guide" else None
            found = train(ARMS[name][0](seed), world, seed, guide)
            results[name].append(found)
            console.print(f"seed {seed} {name}: {found.probe:.1f} % in {found.seconds:.1f} s", highlight=False)
    rows = table(results)
    shown = Table(*COLUMNS)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    note = f"Untrained encoder {statistics.mean(untrained):.1f} %, raw input {statistics.mean(raw):.1f} % (few labels)."
    console.print(note)
    if options.out is not None:
        lines = ["| " + " | ".join(row) + " |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
        options.out.write_text("\n".join([*lines, "", note, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
