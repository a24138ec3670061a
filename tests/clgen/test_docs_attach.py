"""docs/attach.md says what is so: its code runs in order, its sentences and tables are those of the code."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

from contraux import clgen
from contraux.clgen import attach
from contraux.clgen.defaults import BLOCKS, EXAMPLES, JOINT
from contraux.core import Contrastive
from contraux.core.encoders import ProjectionHead

CLGEN = Path(clgen.__file__).parent
PAGE = CLGEN.parent / "docs" / "attach.md"
TEXT = PAGE.read_text(encoding="utf-8")
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def rgb(seed):
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def _one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_the_code_runs_as_it_stands(_one_process):
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(4, 8), norm_num_groups=2,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    names = {
        "images": rgb(1),
        "views": rgb(1).flip(3),
        "fakes": rgb(2).tanh(),
        "labels": torch.arange(6) % 2,
        "unet": unet,
        "scheduler": DDPMScheduler(),
        "x": torch.randn(6, 1, 8, 8),
        "index": torch.arange(6),
        "t": torch.arange(6) * 150,
        "noise": torch.randn(6, 1, 8, 8),
    }
    lines = TEXT.splitlines()
    blocks = CODE.findall(TEXT)
    assert len(blocks) == TEXT.count("```python") == 9
    for block in blocks:
        start = lines.index(block.splitlines()[0])
        exec(compile("\n" * start + block, PAGE, "exec"), names)
        if "loss" in names:
            assert names["loss"].isfinite() and names["loss"].requires_grad
    assert all(weight.grad is not None for weight in names["disc"].parameters())


def test_the_sentences_are_those_of_the_code():
    source = " ".join(path.read_text(encoding="utf-8") for path in CLGEN.glob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # literals that go on in the next line
    table = TEXT.split("| sentence | do |")[1].split("\n\n")[0]
    phrases = [re.findall(r"`+([^`]+)`+", row.split("|")[1])[0].strip() for row in table.splitlines()[2:]]
    assert len(phrases) == 9
    for phrase in phrases:
        literal = {"puts out a tuple of 2": "puts out {", "needs loss(labels=...)": "needs loss("}.get(phrase, phrase)
        assert literal in source, phrase


def test_the_tables_name_what_the_code_knows():
    rows = [row for row in TEXT.splitlines() if re.match(r"\| `\w+Model`", row)]
    known = {name for row in rows if "| yes" in row for name in re.findall(r"`(\w+Model)`", row)}
    assert known == set(EXAMPLES)
    items = {}
    for row in rows:
        for item in re.findall(r"k\[(\d)\]", row):
            items |= dict.fromkeys(re.findall(r"`(\w+Model)`", row), int(item))
    assert items == JOINT
    assert all(f"`{name}`" in TEXT for name in BLOCKS)


def test_the_method_of_the_other_page_trains_both_players():
    """docs/gan_methods.md, "A new one"."""
    page = CLGEN.parent / "docs" / "gan_methods.md"
    block = CODE.findall(page.read_text(encoding="utf-8"))[-1]
    names = {}
    exec(compile(block, page, "exec"), names)
    disc = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Linear(64, 1))
    mine = partial(names["Mine"], objective=partial(Contrastive, projection=partial(ProjectionHead, hidden=8, out=8)))
    aux = attach(disc, at="0", objective=mine, example=rgb(0))
    labels = torch.arange(6) % 2
    with aux:
        disc(rgb(1)), disc(rgb(2))
    aux.loss(labels=labels).backward()
    assert all(weight.grad is not None for weight in (*disc[0].parameters(), *aux.parameters()))
    fakes = rgb(3).requires_grad_()
    with aux.for_generator():
        disc(fakes)
    aux.loss(labels=labels).backward()
    assert fakes.grad.abs().sum() > 0
