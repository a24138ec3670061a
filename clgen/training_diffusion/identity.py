"""An autoencoder of diffusers that changes nothing, for pipelines that want one where a denoiser works on pixels."""

from typing import Any

import torch
from torch import nn

SMALL = 1000.0
"""Latents are divided by this: `AutoencoderTiny` bends what is large by 3 tanh(z / 3), which leaves z = x / 1000 alone
to 4e-8 of it."""


def identity_autoencoder(channels: int) -> nn.Module:
    """Return an `AutoencoderTiny` whose decoder returns its latents times 1000, for images in about [-1, 1].

    One convolution puts out z and -z, of which ReLU keeps the positive parts, and another subtracts them again:
    relu(z) - relu(-z) = z. Weights, and no code, so that `DiffusionPipeline.from_pretrained` needs nothing of ours.
    Only decoding is defined: the encoder's weights are 0.

    Args:
        channels: C of the images.
    """
    from diffusers import AutoencoderTiny

    found: Any = AutoencoderTiny(
        in_channels=channels,
        out_channels=channels,
        latent_channels=channels,
        encoder_block_out_channels=(2 * channels,),
        decoder_block_out_channels=(2 * channels,),
        num_encoder_blocks=(0,),
        num_decoder_blocks=(0,),
        scaling_factor=SMALL,
    )
    first, _, last = found.decoder.layers
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.zero_()
        for c in range(channels):
            first.weight[2 * c, c, 1, 1], first.weight[2 * c + 1, c, 1, 1] = 1.0, -1.0
            # The decoder ends with 2 x - 1, from [0, 1] to [-1, 1].
            last.weight[c, 2 * c, 1, 1], last.weight[c, 2 * c + 1, 1, 1] = SMALL / 2, -SMALL / 2
        last.bias.fill_(0.5)
    module: nn.Module = found
    return module.eval()
