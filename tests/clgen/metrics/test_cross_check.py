"""The whole way from images to numbers against torch-fidelity and torchmetrics, with one and the same extractor."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import nn

from contraux.clgen.images import Images, as_float
from contraux.clgen.metrics import (
    Extracted,
    Inception,
    Pretrained,
    RandomCNN,
    Reals,
    Settings,
    classifier,
    evaluate_images,
    seen,
)
from contraux.core.data import digits
from contraux.core.encoders import SmallCNN
from contraux.core.encoders.pretrained import PretrainedEncoder

NAME, K, SIDE = "contraux-test", 5, 16


class Bytes(nn.Module):
    """Random weights that read bytes as bytes, and floats as they are, in double precision at the end."""

    classes: tuple[str, ...] = ()
    rescaled = False
    name = "own"
    num_features = 64

    def __init__(self):
        super().__init__()
        self.network, self.read = RandomCNN(3, seed=3), []

    def features(self, images):
        self.read.append((images.dtype, float(images.min()), float(images.max())))
        return self.network(images).features.double()

    def forward(self, images):
        return Extracted(self.features(images))


class ForTorchmetrics(Bytes):
    """The same as torchmetrics wants it; or one that takes everything for bytes, as most published networks do."""

    def __init__(self, always_bytes=False):
        super().__init__()
        self.always_bytes = always_bytes

    def forward(self, images):
        return self.features(images.float() / 127.5 - 1 if self.always_bytes else images)


class Rows(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def patches(photo, count, seed):
    """Return `(count, 3, 16, 16)` uint8: squares cut at random from a photograph."""
    random = np.random.default_rng(seed)
    height, width, _ = photo.shape
    corners = zip(random.integers(0, height - SIDE, count), random.integers(0, width - SIDE, count), strict=True)
    cut = np.stack([photo[y : y + SIDE, x : x + SIDE] for y, x in corners])
    return torch.from_numpy(cut).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="module")
def photographs():
    temple, flower = load_sample_images().images
    return patches(temple, 300, 0), torch.cat([patches(temple, 100, 1), patches(flower, 200, 2)])


@pytest.fixture(scope="module")
def ours(photographs):
    real, fake = photographs
    whole = Images(as_float(real), torch.full((len(real),), -1), ())
    own = Bytes()
    found = evaluate_images(
        whole, as_float(fake), [own, RandomCNN(3, seed=3)], settings=Settings(k=K, subsets=1, subset_size=300, draws=1)
    )
    return found, own


# --- torch-fidelity ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fidelity(photographs):
    peer = pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    read = []

    class ForFidelity(FeatureExtractorBase):
        def __init__(self, name, features_list, **_):
            super().__init__(name, features_list)
            self.own = Bytes()
            self.own.read = read

        @staticmethod
        def get_provided_features_list():
            return ("pool",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "pool"

        def forward(self, images):
            return (self.own.features(images),)

    real, fake = photographs
    peer.register_feature_extractor(NAME, ForFidelity)
    try:
        found = peer.calculate_metrics(
            input1=Rows(fake), input2=Rows(real), feature_extractor=NAME, fid=True, kid=True, prc=True, isc=False,
            kid_subsets=1, kid_subset_size=300, prc_neighborhood=K, cuda=False, save_cpu_ram=True, verbose=False,
            batch_size=64,
        )  # fmt: skip
    finally:
        FEATURE_EXTRACTORS_REGISTRY.pop(NAME)
    return found, read


def test_distances_and_shares_are_those_of_torch_fidelity(ours, fidelity):
    found, peer = ours[0]["metrics"], fidelity[0]
    assert found["frechet/own"] == pytest.approx(peer["frechet_inception_distance"], rel=1e-5)
    assert found["kernel/own"] == pytest.approx(peer["kernel_inception_distance_mean"], rel=1e-5)  # of all rows
    for name in ("precision", "recall"):
        assert found[f"{name}/own"] == pytest.approx(peer[name], abs=1e-6) and 0 < peer[name] < 1


def test_features_that_are_rescaled_have_the_same_distance_in_another_unit(ours, fidelity):
    found = ours[0]
    scale = found["extractors"]["random_cnn"]["scale"]
    assert found["extractors"]["own"]["scale"] == 1 and abs(scale - 1) > 0.1
    expected = scale**2 * fidelity[0]["frechet_inception_distance"]
    assert found["metrics"]["frechet/random_cnn"] == pytest.approx(expected, rel=1e-5)
    for name in ("precision", "recall"):
        assert found["metrics"][f"{name}/random_cnn"] == pytest.approx(fidelity[0][name], abs=1e-6)


def test_extractors_are_handed_bytes_as_those_of_torch_fidelity(ours, fidelity):
    for dtype, low, high in [*ours[1].read, *fidelity[1]]:
        assert dtype == torch.uint8 and low < 50 and high > 200


# --- torchmetrics -----------------------------------------------------------------------------------------------------


def by_torchmetrics(real, fake, normalize, always_bytes=False):
    peer = pytest.importorskip("torchmetrics.image.fid")
    metric = peer.FrechetInceptionDistance(feature=ForTorchmetrics(always_bytes), normalize=normalize)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute().item(), metric.inception.read[0]


@pytest.mark.parametrize("always_bytes", [False, True])
def test_the_distance_is_that_of_torchmetrics_on_bytes(ours, photographs, always_bytes):
    distance, _ = by_torchmetrics(*photographs, normalize=False, always_bytes=always_bytes)
    assert ours[0]["metrics"]["frechet/own"] == pytest.approx(distance, rel=1e-5)


def test_with_normalize_torchmetrics_hands_its_own_module_floats_and_the_distance_is_another(ours, photographs):
    """`normalize=True` says that images lie in [0, 1]. They become bytes for Inception, not for other modules.

    Nothing is said, and the wrong distance may be larger or smaller: a module that takes floats for [-1, 1] sees images
    of half the contrast, one that takes everything for bytes sees nearly black ones.
    """
    unit = [images.float() / 255 for images in photographs]
    right = ours[0]["metrics"]["frechet/own"]
    distance, read = by_torchmetrics(*unit, normalize=True)
    assert read[0] == torch.float32 and read[1] >= 0 and read[2] <= 1
    assert (distance, read) == by_torchmetrics(*unit, normalize=False)  # it makes no difference at all
    assert abs(distance / right - 1) > 0.1
    black, _ = by_torchmetrics(*unit, normalize=True, always_bytes=True)
    assert black < right / 1000
    # Floats in [-1, 1], which our extractors read as well as bytes, are right with torchmetrics too.
    own_range, _ = by_torchmetrics(*(as_float(images) for images in photographs), normalize=True)
    assert own_range == pytest.approx(right, rel=1e-5)


def test_bytes_and_floats_of_them_have_the_same_metrics(ours, photographs):
    real, fake = photographs
    whole = Images(as_float(real), torch.full((len(real),), -1), ())
    settings = Settings(k=K, subsets=1, subset_size=300, draws=1)
    found = evaluate_images(whole, fake, [Bytes()], settings=settings)
    assert found["metrics"] == {name: value for name, value in ours[0]["metrics"].items() if "/own" in name}


# --- what each extractor of ours reads --------------------------------------------------------------------------------


def test_every_extractor_reads_bytes_and_floats_in_minus_1_1_alike(tmp_path):
    images = digits("test").inputs[:64]
    reals = Reals(Images(as_float(images), digits("test").labels[:64], tuple("0123456789")), None, "digits")
    described = {"_target_": "contraux.core.encoders.SmallCNN", "width": 8}
    encoder = PretrainedEncoder(SmallCNN((1, 8, 8), 8), (1, 8, 8), (0.3,), (0.4,), described)
    encoder.save_pretrained(tmp_path / "encoder")
    for extractor in (classifier(reals, width=8, steps=1), RandomCNN(1), Pretrained(tmp_path / "encoder")):
        by_bytes, by_floats = (seen(extractor, given).features for given in (images, as_float(images)))
        np.testing.assert_allclose(by_bytes, by_floats, atol=1e-6)
    # An encoder reads [0, 1], as in its pretraining.
    with torch.no_grad():
        expected = encoder.eval()(images.float() / 255)
    np.testing.assert_allclose(by_bytes, expected, atol=1e-5)


def test_inception_is_torch_fidelitys_on_bytes_and_grey_is_three_equal_channels(tmp_path):
    """With random weights in the file: their values play no part in what is handed to the network."""
    peer = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3

    class Unloaded(peer):
        def load_state_dict(self, *_):
            return None

    torch.save({}, tmp_path / "nothing.pth")
    torch.manual_seed(0)
    network = Unloaded("x", ["2048"], feature_extractor_weights_path=str(tmp_path / "nothing.pth"))
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)  # with the default, features vanish
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    grey = digits("test").inputs[:2]
    expected = network(grey.expand(-1, 3, -1, -1))[0]
    found = Inception(tmp_path / "weights.pth")
    assert not found.rescaled  # its distances are compared with those of papers
    assert torch.equal(found(as_float(grey)).features, expected) and expected.shape == (2, 2048)
    assert (expected[0] - expected[1]).abs().max() > 0.1
