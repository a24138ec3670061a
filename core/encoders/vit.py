"""Vision transformers from torchvision."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from ..check import choice, whole
from .inputs import image_shape
from .weights import library_weights


class ViT(nn.Module):
    """`(N, C, H, W) -> (N, dim)`: the class token of torchvision's VisionTransformer, without its classifier.

    Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929); the defaults are ViT-S/16. ViT-B has dim 768 and heads
    12, ViT-L dim 1024, heads 16 and layers 24.

    Args:
        input_shape: (C, H, W), H = W, a multiple of the patch size.
        patch_size: side of a patch in pixels.
        dim: width, also `out_features`; a multiple of heads.
        layers: number of blocks.
        heads: of attention, in each block.
        mlp_dim: hidden width of each block's MLP; None takes 4 dim.
        frozen_patches: never train the projection of patches, which steadies MoCo v3 (Chen, Xie, He 2021, section 4.2,
            https://arxiv.org/abs/2104.02057).
        weights: None for random ones, or a name of torchvision with its model, such as `vit_b_16.IMAGENET1K_V1`, which
            is downloaded. The embeddings of positions are interpolated to the image size.

    Raises:
        ValueError: a size is not a whole number in its range, images are not square or do not divide into patches,
            unknown weights, or weights for another number of channels or another architecture.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        patch_size: int = 16,
        dim: int = 384,
        layers: int = 12,
        heads: int = 6,
        mlp_dim: int | None = None,
        frozen_patches: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape("ViT", input_shape)
        patch = whole("patch_size", patch_size, 1)
        if height != width or height % patch:
            raise ValueError(
                f"ViT needs square images of a multiple of patch_size={patch} pixels, got {height} x {width}"
            )
        if whole("dim", dim, 1) % whole("heads", heads, 1):
            raise ValueError(f"dim must be a multiple of heads={heads}, got {dim}")
        hidden = 4 * dim if mlp_dim is None else whole("mlp_dim", mlp_dim, 1)
        if weights is not None and channels != 3:
            raise ValueError(f"weights={weights!r} are for 3 channels, got {channels}")
        network = VisionTransformer(height, patch, whole("layers", layers, 1), heads, dim, hidden)
        if weights is not None:
            _load(network, weights)
        network.heads = nn.Identity()
        if channels != 3:
            network.conv_proj = nn.Conv2d(channels, dim, patch, patch)
            nn.init.trunc_normal_(network.conv_proj.weight, std=(channels * patch * patch) ** -0.5)
            nn.init.zeros_(network.conv_proj.bias)
        if frozen_patches:
            network.conv_proj.requires_grad_(False)
        self.out_features = dim
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, dim)` features of `(N, C, H, W)` images."""
        return self.network(x)


MODELS = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")


def _load(network: VisionTransformer, weights: str) -> None:
    model, _, name = weights.partition(".")
    state = library_weights(choice("model in weights", model, MODELS), name or "DEFAULT")
    state = {key: value for key, value in (state or {}).items() if not key.startswith("heads.")}
    own = {key: value for key, value in network.state_dict().items() if not key.startswith("heads.")}
    token = "class_token"
    if set(state) != set(own) or state["conv_proj.weight"].shape != own["conv_proj.weight"].shape:
        found, asked = _sizes(state, token), _sizes(own, token)
        raise ValueError(f"weights={weights!r} are for a ViT of {found}, got one of {asked}")
    state = interpolate_embeddings(network.image_size, network.patch_size, state)
    network.load_state_dict(state, strict=False)  # strict in all but the head, as compared above


def _sizes(state: dict[str, Tensor], token: str) -> str:
    layers = sum(key.endswith("self_attention.in_proj_weight") for key in state)
    return f"dim={state[token].shape[-1]}, layers={layers}, patch_size={state['conv_proj.weight'].shape[-1]}"
