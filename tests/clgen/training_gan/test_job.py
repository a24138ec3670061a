"""What `contraux gan` and `contraux sample` make of a config before anything runs."""

import pytest
import torch
from omegaconf import OmegaConf

from contraux.clgen.images import Images
from contraux.clgen.sample import main
from contraux.clgen.training_gan import dcgan, sndcgan
from contraux.clgen.training_gan.evaluation import Evaluation
from contraux.clgen.training_gan.job import attached
from contraux.clgen.training_gan.saving import save_part
from contraux.core.preset import option


def images(count, size=16):
    generator = torch.Generator().manual_seed(0)
    tensor = torch.rand(count, 1, size, size, generator=generator) * 2 - 1
    return Images(tensor, torch.arange(count) % 2, ("a", "b"))


@pytest.mark.parametrize(("count", "given", "size"), [(67, None, 3), (5, None, 1), (67, 9, 9)])
def test_insgens_queues_hold_a_twentieth_of_the_images(count, given, size):
    method = option("gan/method", "insgen")
    if given is not None:
        method.module.size = given
    cfg = OmegaConf.create({"method": method, "at": None})
    made = attached(cfg, sndcgan(size=16, channels=1, width=2, latent=4).discriminator, images(count), 0).method
    assert made.real.sampler.size == made.fake.sampler.size == size
    assert made.real.sampler is not made.fake.sampler


@pytest.mark.parametrize(("part", "ema", "sentence"), [
    ("generator", False, "ema=false must find that generator, and '.*generator' holds the moving average: "),
    ("generator_last", True, "ema=true must find that generator, and '.*' holds the generator of the last step"),
    ("", "flase", "ema must be true or false, got 'flase'"),
    ("", 1, "ema must be true or false, got 1"),
])  # fmt: skip
def test_the_generator_that_was_asked_for_or_none(tmp_path, part, ema, sentence):
    backbone = {"_target_": "contraux.clgen.training_gan.dcgan", "width": 2, "latent": 4}
    known = {"backbone": backbone, "size": 16, "channels": 1, "classes": []}
    for folder, average in (("generator", True), ("generator_last", False)):
        generator = dcgan(size=16, channels=1, width=2, latent=4).generator
        save_part(generator, "generator", tmp_path / folder, {**known, "average": average})
    own = {"checkpoint": str(tmp_path / part), "ema": ema, "n": 2, "classes": None, "threads": None, "device": "cpu"}
    with pytest.raises(ValueError, match=sentence):
        main(OmegaConf.create(own))


def test_an_evaluation_says_at_once_what_does_not_fit(tmp_path):
    Evaluation().check(images(16), images(8), data="own")
    with pytest.raises(ValueError, match="metrics need at least 8 images on each side, got 7"):
        Evaluation().check(images(15), None, data="own")
    with pytest.raises(ValueError, match="held_out images must be like the real ones"):
        Evaluation().check(images(16), images(16, 8), data="own")
    with pytest.raises(ValueError, match=r"an extractor's folder must hold config\.json"):
        Evaluation(folder=str(tmp_path)).check(images(16), None, data="own")
