"""Any model of timm by name."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..check import choice
from .inputs import image_shape


class Timm(nn.Module):
    """`(N, C, H, W) -> (N, D)`: a model of timm without its classifier (the extra `timm`).

    Args:
        input_shape: (C, H, W); a model built for one size only is built for this one.
        name: as in `timm.list_models()`, for example `convnext_atto`; with weights after a dot, `resnet18.a1_in1k`.
        pretrained: download timm's weights. It adapts them itself to other channels and sizes.

    Raises:
        ValueError: timm is not installed, does not know the name (models in other places, `hf-hub:...`, are refused),
            or its model cannot read such images.
    """

    def __init__(self, input_shape: Sequence[int], name: str, pretrained: bool = False) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ValueError("Timm needs timm, which is not installed: pip install 'contraux[timm]'") from error
        channels, height, width = image_shape("Timm", input_shape)
        if not isinstance(name, str) or not timm.is_model(name):
            choice("model of timm", name, timm.list_models())
        if pretrained not in (True, False):
            raise ValueError(f"pretrained must be true or false, got {pretrained!r}")
        described = timm.get_pretrained_cfg(name)
        size = (height, width) if getattr(described, "fixed_input_size", False) else None  # timm leaves out a None
        try:
            self.network = timm.create_model(
                name, pretrained=pretrained, num_classes=0, in_chans=channels, img_size=size
            )
            self.out_features = self._probe(torch.zeros(1, channels, height, width))
        except (ArithmeticError, AssertionError, OSError, RuntimeError, TypeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(
                f"timm's {name} could not be made for images of {(channels, height, width)}: {reason}"
            ) from error

    @torch.no_grad()
    def _probe(self, image: Tensor) -> int:
        """Return the dimension of the features, which timm's models tell in different ways."""
        training = self.network.training
        features = self.network.eval()(image)
        self.network.train(training)
        if features.ndim != 2:
            raise RuntimeError(f"it makes features of shape {tuple(features.shape)}, not (N, D)")
        return features.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, D)` features of `(N, C, H, W)` images."""
        return self.network(x)
