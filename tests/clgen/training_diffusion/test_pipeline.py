"""What a run leaves is sampled from by diffusers alone, and our samples are what comes out there."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from contraux.clgen.diffusion.labels import NULL
from contraux.clgen.training_diffusion import Diffusion, Flow, dit, sample, save_pipeline, unet
from contraux.clgen.training_diffusion.identity import identity_autoencoder

SHAPE, STEPS = (1, 8, 8), 4
KINDS = {
    "ddim": (unet, False, Diffusion("ddim"), 1.0, "DDIMPipeline"),
    "ddpm": (unet, False, Diffusion("ddpm"), 1.0, "DDPMPipeline"),
    "flow": (unet, False, Flow(), 1.0, "DDPMPipeline"),
    "told": (unet, True, Diffusion("ddim", "v_prediction"), 2.5, "DiTPipeline"),
    "dit": (dit, True, Flow(), 3.0, "DiTPipeline"),
    "untold": (dit, False, Diffusion("ddim", "sample"), 1.0, "DiTPipeline"),
}
SCRIPT = """
import json, sys
import numpy as np
import torch
from diffusers import DiffusionPipeline

kinds = {}
for name, labels, guidance in json.loads(sys.argv[1]):
    pipeline = DiffusionPipeline.from_pretrained(name, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    told = {} if labels is None else {"class_labels": labels, "guidance_scale": guidance}
    count = {"batch_size": 3} if labels is None else {}
    own = torch.Generator().manual_seed(7)
    images = pipeline(**told, **count, generator=own, num_inference_steps=4, output_type="np").images
    np.save(f"{name}.npy", images)
    kinds[name] = type(pipeline).__name__
    names = pipeline.get_label_ids(["two"]) if getattr(pipeline, "labels", None) else None
print(json.dumps([kinds, names, sorted(name for name in sys.modules if name.startswith("contraux"))]))
"""


@pytest.mark.parametrize("channels", [1, 3])
def test_the_autoencoder_changes_nothing(channels):
    model = identity_autoencoder(channels)
    images = torch.rand(2, channels, 5, 5, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    with torch.no_grad():
        found = model.decode(images / model.config.scaling_factor).sample
    assert torch.allclose(found, images, atol=3e-6)


def test_pipelines_sample_without_us(tmp_path):
    models, asked = {}, []
    for seed, (name, (make, conditional, process, guidance, _)) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        small = (
            {"channels": (8, 8), "layers": 1, "groups": 4} if make is unet else {"layers": 2, "heads": 2, "head_dim": 8}
        )
        model = models[name] = make(SHAPE, conditional, **small).eval()
        for parameter in model.parameters():  # a new DiT puts out 0
            torch.nn.init.normal_(parameter, std=0.2)
        save_pipeline(model, process, tmp_path / name, ["zero", "one", "two"] if conditional else [])
        labels = None if make is unet and not conditional else [2, 0, 1] if conditional else [NULL] * 3
        asked.append((name, labels, guidance))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kinds, names, ours = json.loads(done.stdout.splitlines()[-1])
    assert ours == []
    assert names is None  # of the last one, which is told no classes
    for name, labels, guidance in asked:
        process, kind = KINDS[name][2], KINDS[name][4]
        assert kinds[name] == kind
        noise = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(7))
        told = None if labels is None else torch.tensor(labels)
        found = sample(models[name], process, noise, steps=STEPS, labels=told, guidance=guidance)
        theirs = torch.from_numpy(np.load(tmp_path / f"{name}.npy")).permute(0, 3, 1, 2) * 2 - 1
        assert (theirs.abs() < 0.999).any()
        if name != "ddpm":  # which adds noise of its own on the way
            assert torch.allclose(found, theirs, atol=2e-5), name
    index = json.loads((tmp_path / "dit" / "model_index.json").read_text())
    assert index["id2label"] == {"0": "zero", "1": "one", "2": "two"}


def test_guidance_is_linear_in_its_scale():
    """One step of Euler: the result moves by (scale - 1) times the difference that the label makes."""
    torch.manual_seed(0)
    model = dit(SHAPE, True, layers=1, heads=1, head_dim=8).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    noise, labels = 0.1 * torch.randn(2, *SHAPE), torch.tensor([1, 4])
    at = {w: sample(model, Flow(), noise, steps=1, labels=labels, guidance=w) for w in (1.0, 2.0, 3.0)}
    null = sample(model, Flow(), noise, steps=1, labels=torch.full((2,), NULL))
    assert (at[1.0] - null).abs().max() > 1e-4
    assert torch.allclose(at[3.0] - at[1.0], 2 * (at[2.0] - at[1.0]), atol=1e-5)
    assert torch.allclose(at[2.0] - at[1.0], at[1.0] - null, atol=1e-5)


def test_guidance_costs_nothing_where_no_class_is_asked_for():
    torch.manual_seed(0)
    model, rows = dit(SHAPE, False, layers=1, heads=1, head_dim=8), []
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    noise = torch.randn(2, *SHAPE)
    null, asked = torch.full((2,), NULL), torch.tensor([NULL, 3])
    plain = sample(model, Flow(), noise, steps=2, labels=null)
    with model.pos_embed.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0]))):
        found = sample(model, Flow(), noise, steps=2, labels=null, guidance=2.0)
        sample(model, Flow(), noise, steps=1, labels=asked, guidance=2.0)
    assert rows == [2, 2, 4]
    assert torch.equal(found, plain)


def test_ddpm_repeats_itself_and_differs_by_seed():
    torch.manual_seed(0)
    model = unet(SHAPE, False, channels=(8, 8), layers=1, groups=4)
    noise = torch.randn(2, *SHAPE)
    one, same, other = (sample(model, Diffusion("ddpm"), noise, steps=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert model.training
