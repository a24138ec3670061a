"""Generated images against real ones, and real ones against real ones. Shape legend: N real, M fake images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...core.check import shape, whole
from ..images import Images, as_uint8
from .classes import LEAST, class_agreement, class_shares, intra_class_frechet, missing_classes, total_variation
from .extractor import Extractor, Seen, scale_of, seen
from .gaussians import Gaussian, frechet, gaussian
from .kernel import kernel_distance, squared_mmd
from .neighbourhoods import manifold, squared_radii

SMALLEST = 8  # images on each side, below which nothing is worth saying


class Settings(NamedTuple):
    """How the metrics are computed.

    Attributes:
        k: which neighbour of precision, recall, density and coverage.
        rows: images of each side that these look at, at most; drawn by the seed. Others look at all.
        subsets: of the kernel distance.
        subset_size: rows of each; None: see :func:`kernel_distance`.
        draws: of images for the comparison at the same N.
        seed: of all draws.
    """

    k: int = 5
    rows: int = 10_000
    subsets: int = 100
    subset_size: int | None = None
    draws: int = 5
    seed: int = 0


class Side(NamedTuple):
    """Some images as an extractor sees them, with what they are or were asked to be.

    Attributes:
        seen: their features, rescaled, and predicted classes.
        labels: `(N,)`, -1 where unknown.
    """

    seen: Seen
    labels: np.ndarray

    def rows(self, chosen: np.ndarray) -> "Side":
        """Return some of the images."""
        return Side(self.seen.rows(chosen), self.labels[chosen])


class Reference(NamedTuple):
    """Real images, and what of them does not depend on the images to judge.

    Attributes:
        side: all of them.
        gaussian: of their features.
        few: features of those whose neighbours are looked at.
        radii: of their neighbourhoods.
    """

    side: Side
    gaussian: Gaussian
    few: np.ndarray
    radii: np.ndarray


def evaluate_images(
    real: Images,
    fake: Tensor,
    extractors: Sequence[Extractor],
    *,
    labels: Tensor | None = None,
    held_out: Images | None = None,
    settings: Settings | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """Return what generated images are worth, by each extractor, and what real ones would be at the same N.

    All images are rounded to 8 bits first, so that samples in memory and as PNGs have the same metrics.

    Features f become (f - m) s, with the mean m of the real ones and the scalar s of :func:`scale_of`. This multiplies
    Fréchet distances by s², leaves neighbours as they were, and lets the kernel see how features spread and not where
    they happen to lie: of real digits against real ones by random weights, ReLU features far from 0, the kernel
    distance is 2.5 ± 8.8 without m and 0.002 ± 0.005 with it.

    Distances and shares at small N are biased, so the values over all images stand beside two others, both over `n`
    images on each side drawn `draws` times:

    * `same_n`: n fakes against n real images;
    * `floor`: n other real images against the same n real images. With `held_out` these others come from there,
      otherwise from `real` itself, disjoint: so n = min(M, N, held out) or min(M, N / 2).

    A generator that is as good as the data has `same_n` at `floor`.

    Args:
        real: what is compared with, usually the training images; its labels make the intra-class distance.
        fake: `(M, C, H, W)` uint8, or floats in [-1, 1].
        extractors: with different names.
        labels: `(M,)` classes that the fakes were asked to be, < 0 for none; None: unconditional.
        held_out: further real images.
        settings: of the metrics.
        batch_size: images an extractor sees at once.
        device: where extractors run.

    Returns:
        Values that JSON can hold:

        * `metrics`: a number by name, such as `frechet/digits_cnn`, over all images. By every extractor `frechet`,
          `kernel`, `precision`, `recall`, `density`, `coverage`, and `intra_class_frechet` with labels; by a classifier
          of the data also `class_variation`, `missing_classes`, and `class_agreement` with labels;
        * `same_n`, `floor`: `{mean, sd}` by the same names, without `intra_class_frechet` where a draw has no class
          with enough images;
        * `spread`: sd over the kernel distance's subsets;
        * `counts`: `real`, `fake`, `held_out`, `same_n`, `draws`;
        * `classes`: of each classifier, the shares of the real and fake images by class;
        * `extractors`: name, number of features, scale;
        * `notes`: what a reader must know, in sentences.

    Raises:
        ValueError: images or labels that do not fit, too few images, or a number out of range.
    """
    settings = Settings() if settings is None else settings
    size = checked(real, fake, labels, held_out, settings)
    own = np.full(len(fake), -1) if labels is None else labels.cpu().numpy()
    found: dict[str, Any] = {
        "metrics": {}, "same_n": {}, "floor": {}, "spread": {},
        "counts": {
            "real": len(real.tensor), "fake": len(fake), "held_out": 0 if held_out is None else len(held_out.tensor),
            "same_n": size, "draws": settings.draws,
        },
        "classes": {}, "extractors": {}, "notes": [],
    }  # fmt: skip
    given = {"real": (real.tensor, real.labels.numpy()), "fake": (fake, own)}
    if held_out is not None:
        given["held_out"] = (held_out.tensor, held_out.labels.numpy())
    for extractor in extractors:
        sides = {
            name: Side(seen(extractor, as_uint8(images), batch_size, device), of_them)
            for name, (images, of_them) in given.items()
        }
        scale = scale_of(sides["real"].seen.features) if extractor.rescaled else 1.0
        centre = sides["real"].seen.features.mean(0) if extractor.rescaled else 0.0
        sides = {
            name: Side(Seen((side.seen.features - centre) * scale, side.seen.predicted), side.labels)
            for name, side in sides.items()
        }
        _add(found, extractor, sides, real.classes, settings)
        width = sides["real"].seen.features.shape[1]
        found["extractors"][extractor.name] = {"features": width, "scale": scale}
        if size <= width:
            found["notes"].append(
                f"{extractor.name} has {width} features: covariances of {size} images lack rank, and Fréchet distances "
                "at that N are mostly bias"
            )
    return found


def reference(real: Side, settings: Settings, seed: int) -> Reference:
    """Return real images to compare with; arguments as for :func:`compared`."""
    few = _some(real.seen.features, settings.rows, np.random.default_rng([seed, 0]))
    return Reference(real, gaussian(real.seen.features), few, squared_radii(few, settings.k))


def compared(
    against: Reference, fake: Side, few: np.ndarray, classes: Sequence[str], settings: Settings
) -> dict[str, float]:
    """Return the metrics of one set of images against another, but for the kernel distance.

    Args:
        against: images compared with.
        fake: images to judge.
        few: features of those of them whose neighbours are looked at.
        classes: that the extractor predicts; empty where it predicts none.
        settings: of the metrics.
    """
    real = against.side
    found = {"frechet": frechet(against.gaussian, gaussian(fake.seen.features))}
    found |= manifold(against.few, few, settings.k, real_radii=against.radii)._asdict()
    within = intra_class_frechet(real.seen.features, real.labels, fake.seen.features, fake.labels)
    if within:
        found["intra_class_frechet"] = float(np.mean(list(within.values())))
    if classes and fake.seen.predicted is not None:
        shares = [_shares(side, classes) for side in (real, fake)]
        found["class_variation"] = total_variation(shares[0], shares[1])
        found["missing_classes"] = float(missing_classes(shares[0], shares[1]))
        if (fake.labels >= 0).any():
            found["class_agreement"] = class_agreement(fake.labels, fake.seen.predicted)
    return found


def _add(
    found: dict[str, Any], extractor: Extractor, sides: dict[str, Side], classes: Sequence[str], settings: Settings
) -> None:
    """Add the metrics of one extractor."""
    name, size = extractor.name, found["counts"]["same_n"]
    known = extractor.classes if tuple(extractor.classes) == tuple(classes) else ()
    if not (sides["fake"].labels >= 0).any():  # then the real ones' labels play no part
        sides = {which: Side(side.seen, np.full(len(side.labels), -1)) for which, side in sides.items()}
    kernel = kernel_distance(
        sides["real"].seen.features, sides["fake"].seen.features,
        subsets=settings.subsets, subset_size=settings.subset_size, seed=settings.seed,
    )  # fmt: skip
    few = few_rows(sides["fake"], settings.rows, settings.seed)
    against = reference(sides["real"], settings, settings.seed)
    values = {"kernel": kernel.mean, **compared(against, sides["fake"], few, known, settings)}
    found["metrics"] |= {f"{metric}/{name}": value for metric, value in values.items()}
    found["spread"][f"kernel/{name}"] = kernel.sd
    if known:
        found["classes"][name] = {"names": list(known)} | {
            which: _shares(sides[which], known).round(6).tolist() for which in ("real", "fake")
        }
    for which, values_by_draw in _draws(sides, size, known, settings).items():
        for metric in values_by_draw[0]:
            drawn = [own[metric] for own in values_by_draw if metric in own]
            if len(drawn) < len(values_by_draw):
                continue  # a distance within classes, of which some draws have too few images
            found[which][f"{metric}/{name}"] = {"mean": float(np.mean(drawn)), "sd": float(np.std(drawn))}
    if "intra_class_frechet" not in values and (sides["fake"].labels >= 0).any():
        found["notes"].append(f"no intra-class distance by {name}: no class has {LEAST} images on both sides")


def _draws(
    sides: dict[str, Side], size: int, classes: Sequence[str], settings: Settings
) -> dict[str, list[dict[str, float]]]:
    """Return the metrics of each draw of `size` images on each side, of fakes and of real ones."""
    found: dict[str, list[dict[str, float]]] = {"same_n": [], "floor": []}
    for draw in range(settings.draws):
        random = np.random.default_rng([settings.seed, draw])
        order = random.permutation(len(sides["real"].labels))
        real = sides["real"].rows(order[:size])
        if "held_out" in sides:
            others = sides["held_out"].rows(random.permutation(len(sides["held_out"].labels))[:size])
        else:
            others = sides["real"].rows(order[size : 2 * size])
        fake = sides["fake"].rows(random.permutation(len(sides["fake"].labels))[:size])
        against = reference(real, settings, settings.seed + draw)
        for which, judged in (("same_n", fake), ("floor", others)):
            few = few_rows(judged, settings.rows, settings.seed + draw)
            own = {"kernel": squared_mmd(against.few, few)}  # of all rows: subsets would only add noise
            found[which].append(own | compared(against, judged, few, classes, settings))
    return found


def _shares(side: Side, classes: Sequence[str]) -> np.ndarray:
    predicted = side.seen.predicted
    return class_shares(np.empty(0, int) if predicted is None else predicted, len(classes))


def few_rows(judged: Side, most: int, seed: int) -> np.ndarray:
    """Return features of images to judge, `most` rows at most, drawn by the seed."""
    return _some(judged.seen.features, most, np.random.default_rng([seed, 1]))


def _some(rows: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else rows[random.choice(len(rows), most, replace=False)]


def checked(real: Images, fake: Tensor, labels: Tensor | None, held_out: Images | None, settings: Settings) -> int:
    """Return how many images each side has at the same N; the arguments are those of :func:`evaluate_images`.

    Raises:
        ValueError: see there.
    """
    _check_settings(settings)
    _check_images(real, fake, labels, held_out)
    reals = len(real.tensor)
    size = min(len(fake), reals // 2) if held_out is None else min(len(fake), reals, len(held_out.tensor))
    least = max(SMALLEST, settings.k + 1)
    if size < least:
        raise ValueError(f"metrics need at least {least} images on each side, got {size}")
    return size


def _check_settings(settings: Settings) -> None:
    k = whole("k", settings.k, 1)
    for name, least in (("rows", k + 1), ("subsets", 1), ("draws", 1), ("seed", 0)):
        whole(name, getattr(settings, name), least)
    if settings.subset_size is not None:
        whole("subset_size", settings.subset_size, 2)


def _check_images(real: Images, fake: Tensor, labels: Tensor | None, held_out: Images | None) -> None:
    wanted = real.tensor.shape[1:]
    for name, images in (("fake", fake), ("held_out", fake if held_out is None else held_out.tensor)):
        if images.ndim != 4 or images.shape[1:] != wanted:
            raise ValueError(f"{name} images must be like the real ones, (N, {str(tuple(wanted))[1:]}, "
                             f"got {shape(images)}")  # fmt: skip
    if labels is not None and (labels.shape != fake.shape[:1] or labels.is_floating_point()):
        raise ValueError(f"labels must be whole numbers, one for each of {len(fake)} fakes, got {shape(labels)}")
    if labels is not None and len(real.classes) and int(labels.max()) >= len(real.classes):
        raise ValueError(f"labels must be < {len(real.classes)}, the number of classes, got {int(labels.max())}")
    if not torch.isfinite(fake).all():
        broken = int((~torch.isfinite(fake.flatten(1)).all(1)).sum())
        raise ValueError(f"fake images must be finite, and {broken} of {len(fake)} are not")
