"""REPA: a denoiser's tokens resemble a frozen encoder's of the clean image. B images, T tokens, D features."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from ...core.check import whole
from ...core.losses import negative_cosine
from ...core.pairs import Outcome
from ..method import Context, Features, GenerativeMethod, Sizes
from .tokens import matched_tokens


class Repa(GenerativeMethod):
    """Representation alignment (Yu et al. 2024, https://arxiv.org/abs/2410.06940).

        L = -mean_{i,t} cosine( mlp(h_it), f(x_i)_t )

    with h the tokens of the noisy image x_t in the denoiser and f(x) those of the clean image in a frozen encoder. The
    paper adds 0.5 of it. Where the encoder puts out one vector for an image, the mean of the denoiser's tokens is
    aligned with it; where grids differ, the encoder's is resized (`matched_tokens`).

    The encoder costs its forward pass at every step. After `stop_step` updates the loss is 0 and the encoder is not
    called: alignment helps early and hinders late (Wang et al. 2025, HASTE, https://arxiv.org/abs/2505.16792).

    Deviations: any tap, any encoder and any width of the MLP.

    Args:
        sizes: of the tap `features`, a map, tokens or a vector.
        encoder: clean images, as `loss(clean=...)` gets them, -> `(B, E)`, `(B, E, h, w)` or `(B, T, E)`. It is frozen,
            in evaluation mode, and is no part of the method's weights and state_dict. `PretrainedTeacher` and
            `TimmTeacher` read images in [-1, 1]; any other module does as well.
        hidden: width of the MLP's two hidden layers. The paper: 2048.
        stop_step: updates after which it stops; None: never.
        out_features: E, where the encoder has no such attribute.

    `loss()` takes `clean` `(B, C, H, W)`: the images themselves, also where the denoiser works on latents.

    Raises:
        ValueError: a number out of range, or the encoder's dimension is not known.
    """

    taps: ClassVar[Mapping[str, str]] = {"features": "map"}
    roles = ("denoise",)
    context = ("clean",)

    def __init__(
        self,
        sizes: Sizes,
        *,
        encoder: nn.Module,
        hidden: int = 2048,
        stop_step: int | None = None,
        out_features: int | None = None,
    ) -> None:
        super().__init__()
        size = sizes["features"]
        dim = size[0] if len(size) in (1, 3) else size[-1]
        out = getattr(encoder, "out_features", None) if out_features is None else out_features
        if not isinstance(encoder, nn.Module) or not isinstance(out, int):
            raise ValueError(
                f"an encoder to align with must be a module with an integer `out_features` (or give it), got "
                f"{type(encoder).__name__} with {out!r}"
            )
        hidden = whole("hidden", hidden, 1)
        self.stop_step = None if stop_step is None else whole("stop_step", stop_step)
        self.projection = nn.Sequential(
            nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, out)
        )
        self._encoder = [encoder.requires_grad_(False).eval()]  # in a list: not ours to train or to save
        self._step = 0  # a plain integer, so that nobody waits for a GPU; it travels in the extra state

    @property
    def encoder(self) -> nn.Module:
        """The frozen encoder."""
        return self._encoder[0]

    @property
    def stopped(self) -> bool:
        """Whether the alignment is over."""
        return self.stop_step is not None and self._step >= self.stop_step

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return loss and metrics; `alignment` is the mean cosine, in [-1, 1].

        Raises:
            ValueError: another number of images than of rows, or tokens that fit no grid.
        """
        if self.stopped:
            # 0 with a gradient of 0: who wraps model and heads in one unit expects one of every weight.
            loss = sum((weight.sum() for weight in self.parameters()), torch.zeros(())) * 0.0
            return Outcome(loss, {"alignment": loss.detach()})
        clean, h = context["clean"], features["denoise"]["features"]
        if len(clean) != len(h):
            raise ValueError(f"clean must be the images of the {len(h)} rows that are denoised, got {len(clean)}")
        with torch.no_grad():
            target = self.encoder(clean).float()
        aspect = clean.shape[-2] / clean.shape[-1] if clean.ndim == 4 else 1.0
        h, target = matched_tokens(h, target, aspect)
        loss = negative_cosine(self.projection(h).flatten(0, 1), target.flatten(0, 1))
        return Outcome(loss, {"alignment": -loss.detach()})

    def update(self) -> None:
        """Count the step."""
        self._step += 1

    def get_extra_state(self) -> dict[str, int]:
        """Return how many steps there were."""
        return {"step": self._step}

    def set_extra_state(self, state: Mapping[str, int]) -> None:
        """Take what `get_extra_state` returned."""
        self._step = int(state["step"])

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Repa":
        self.encoder._apply(fn)  # the encoder goes where the method goes
        return super()._apply(fn, recurse)
