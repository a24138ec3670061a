"""ResNets from torchvision."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torchvision.models import get_model_builder, list_models
from torchvision.models import resnet as family

from ..check import choice
from .inputs import image_shape
from .weights import library_weights

MODELS = [name for name in list_models() if get_model_builder(name).__module__ == family.__name__]
STEMS = {"imagenet": 32, "cifar": 8}  # smallest image: less would be padding only after the last stride


class ResNet(nn.Module):
    """`(N, C, H, W) -> (N, D)`: torchvision's ResNets without their classifier (He et al. 2016).

    D is 512 for resnet18 and resnet34, 2048 for the deeper ones (https://arxiv.org/abs/1512.03385).

    Args:
        input_shape: (C, H, W), H and W at least 32, with the CIFAR stem at least 8.
        name: resnet18, resnet34, resnet50, resnet101, ..., or another of torchvision's family (wide, ResNeXt).
        stem: `imagenet`, a 7 x 7 convolution of stride 2 and max pooling; or `cifar` for small images, a 3 x 3
            convolution of stride 1 and no pooling (Chen et al. 2020, SimCLR, appendix B.9).
        weights: None for random ones, or a name of torchvision such as `IMAGENET1K_V2`, which is downloaded.

    Raises:
        ValueError: an unknown name, stem or weights, images too small, or weights for other channels or stem.
    """

    def __init__(
        self, input_shape: Sequence[int], name: str = "resnet18", stem: str = "imagenet", weights: str | None = None
    ) -> None:
        super().__init__()
        choice("ResNet", name, MODELS)
        least = STEMS[choice("stem", stem, STEMS)]
        hint = ", for which stem=cifar is made" if stem == "imagenet" else ""
        channels, _, _ = image_shape(f"{name} with the {stem} stem", input_shape, least, hint)
        if weights is not None and (channels != 3 or stem != "imagenet"):
            raise ValueError(
                f"weights={weights!r} of {name} are for 3 channels and the imagenet stem, "
                f"got {channels} channel{'s' * (channels != 1)} and the {stem} stem"
            )
        state = library_weights(name, weights)
        network = cast(family.ResNet, get_model_builder(name)())
        self.out_features = network.fc.in_features
        if state is not None:
            network.load_state_dict(state)
        network.fc = nn.Identity()
        if stem == "cifar":
            network.conv1 = _first(channels, 3, 1)
            network.maxpool = nn.Identity()
        elif channels != 3:
            network.conv1 = _first(channels, 7, 2)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, D)` features >= 0 of `(N, C, H, W)` images."""
        return self.network(x)


def _first(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    """A first convolution, initialised as torchvision does the others."""
    made = nn.Conv2d(channels, 64, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made
