"""Denoisers for every size, and the user's own folder as a start."""

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

from contraux.clgen.diffusion.labels import predicted
from contraux.clgen.training_diffusion import Diffusion, Flow, dit, folder, save_pipeline, unet


@pytest.mark.parametrize("size", [8, 16, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_unet_of_every_size_puts_out_what_it_takes(size, channels):
    model = unet((channels, size, size), False, layers=1)
    rows = torch.zeros(1, channels, size, size)
    with torch.no_grad():
        assert predicted(model, rows, torch.tensor([5]), None).shape == rows.shape


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: unet((1, 10, 10), False, channels=(8, 8, 8), groups=4),
            "the size of images must be a multiple of 4 for 3",
        ),
        (
            lambda: unet((1, 8, 8), False, channels=(12, 8)),
            r"channels must be multiples of groups, 8, and more, .* got \[12, 8\]",
        ),
        (lambda: unet((1, 8, 8), False, channels=(16, 8)), r"a group of one channel .* got \[16, 8\]"),
        (lambda: unet((1, 8, 6), False), r"images must be square, \(C, S, S\), got \(1, 8, 6\)"),
        (lambda: dit((1, 9, 9), False), "the size of images must be a multiple of patch, 2, got 9"),
        (lambda: dit((1, 8, 8), False, layers=0), "layers must be a whole number >= 1, got 0"),
        (lambda: folder((1, 8, 8), False, path="nowhere"), "model.path must be a folder of diffusers"),
    ],
)
def test_what_does_not_fit(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_users_own_unet_and_pipeline_are_the_start(tmp_path):
    torch.manual_seed(0)
    own = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    own.save_pretrained(tmp_path / "model")
    DDIMPipeline(own, DDIMScheduler()).save_pretrained(tmp_path / "pipe")
    for path in ("model", "pipe"):
        found = folder((1, 8, 8), False, path=str(tmp_path / path))
        assert all(torch.equal(one, other) for one, other in zip(own.parameters(), found.parameters(), strict=True))
    with pytest.raises(ValueError, match="of the model's 1 channels and 8 pixels, got 3 and 8"):
        folder((3, 8, 8), False, path=str(tmp_path / "model"))
    with pytest.raises(ValueError, match="needs a U-Net with num_class_embeds=1001, got None"):
        folder((1, 8, 8), True, path=str(tmp_path / "model"))


@pytest.mark.parametrize("kind", [unet, dit])
def test_a_finished_run_is_a_start(tmp_path, kind):
    torch.manual_seed(0)
    small = {"channels": (8, 8), "layers": 1, "groups": 4} if kind is unet else {"layers": 1, "heads": 1}
    own = kind((1, 8, 8), True, **small)
    save_pipeline(own, Flow() if kind is dit else Diffusion(), tmp_path / "pipeline", ["zero", "one"])
    found = folder((1, 8, 8), True, path=str(tmp_path))
    assert type(found) is type(own)
    assert all(torch.equal(one, other) for one, other in zip(own.parameters(), found.parameters(), strict=True))
    if kind is dit:
        assert {block.norm1.emb.class_embedder.dropout_prob for block in found.transformer_blocks} == {0.0}
    else:
        with pytest.raises(ValueError, match="a U-Net with a class embedding needs conditional=true"):
            folder((1, 8, 8), False, path=str(tmp_path))


def test_a_dit_begins_with_blocks_that_do_nothing():
    torch.manual_seed(0)
    model = dit((1, 8, 8), True, layers=2, heads=2, head_dim=8)
    seen = []
    for block in model.transformer_blocks:
        block.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    rows, labels = torch.randn(2, 1, 8, 8), torch.tensor([0, 1])
    assert predicted(model, rows, torch.tensor([5, 500]), labels).abs().max() == 0
    assert all(torch.equal(taken, put_out) and taken.std() > 0.1 for taken, put_out in seen)
    for name, parameter in model.named_parameters():  # and yet what it adds is not 0 once the gates open
        if (
            name.endswith((".weight", "embedding_table.weight"))
            and "norm1.linear" not in name
            and "proj_out" not in name
        ):
            assert parameter.std() > 0.01, name
