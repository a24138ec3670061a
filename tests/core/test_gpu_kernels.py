"""The GPU's kernels without a GPU: interpreted for what they compute, compiled for what the interpreter forgives."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from contraux.core.kernels import gpu

triton = pytest.importorskip("triton", reason="Triton has no build for this platform")

FEATURES = ("query_ptr", "key_ptr", "memory_ptr", "a_ptr", "b_ptr")


def test_interpreted_kernels_equal_the_definition():
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interpreted_gpu_kernels.py"))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *wrong, last = done.stdout.strip().splitlines()
    assert not wrong and last == "cases 101"


def compiled(kernel, flags, element, tile, capability=90):
    """Return the bytes of shared memory of a kernel compiled for an NVIDIA GPU, down to its binary."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    flags = {**flags, "BR": tile.rows, "BC": tile.columns, "BD": tile.dimensions}
    types = {}
    for name in kernel.arg_names:
        if name in flags:
            types[name] = "constexpr"
        elif name in FEATURES:
            types[name] = f"*{element}"
        elif name.endswith("_ptr"):
            types[name] = "*i64" if any(word in name for word in ("positive", "label", "exclude")) else "*fp32"
        else:
            types[name] = "i32"
    source = ASTSource(fn=kernel, signature=types, constexprs=flags)
    found = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": tile.warps, "num_stages": 2}
    )
    assert "cubin" in found.asm
    return found.metadata.shared


@pytest.mark.parametrize(
    ("dtype", "dim", "shared"),
    [
        *itertools.product([torch.bfloat16, torch.float32], [128, 768], [gpu.HOPPER]),
        (torch.bfloat16, 256, gpu.AMPERE),
        (torch.float32, 128, gpu.AMPERE),
        (torch.bfloat16, 128, gpu.SMALLEST),
        (torch.float32, 128, gpu.SMALLEST),
    ],
)
def test_tiles_compile_and_fit(dtype, dim, shared):
    from contraux.core.kernels import gpu_tiles

    tile = gpu.tile_for(dtype, dim, shared)
    element = "bf16" if dtype == torch.bfloat16 else "fp32"
    flags = {"LABELS": False, "EXCLUDE": False, "MEMORY": True, "PRECISION": "ieee"}
    assert compiled(gpu_tiles.log_sums, {**flags, "COLUMNS": True}, element, tile) <= shared
    both = {"A": True, "B": True, "A_BY_ROWS": True, "B_BY_ROWS": True, "ATOMIC": True, "HELD": dim <= tile.dimensions}
    assert compiled(gpu_tiles.gradients, {**flags, **both}, element, tile) <= shared


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("rows", [False, True])
def test_every_way_to_say_who_is_positive_compiles(labels, rows):
    from contraux.core.kernels import gpu_tiles

    tile = gpu.Tile(16, 32, 16, 4)
    flags = {"LABELS": labels, "EXCLUDE": True, "MEMORY": False, "PRECISION": "tf32"}
    compiled(gpu_tiles.log_sums, {**flags, "COLUMNS": False}, "fp32", tile)
    one = {"A": rows, "B": True, "A_BY_ROWS": rows, "B_BY_ROWS": False, "ATOMIC": False, "HELD": False}
    compiled(gpu_tiles.gradients, {**flags, **one}, "fp32", tile)


def test_tensors_elsewhere_and_small_ones_are_left_to_others(monkeypatch):
    from contraux.core.kernels.case import Case
    from contraux.core.losses import info_nce

    x = torch.zeros(4, 4)
    case = Case(x, x, torch.arange(4), None, None, True, 0.1, torch.float32)
    assert gpu.on_gpu(case, info_nce) is None
    monkeypatch.setattr(gpu, "SMALL", 0)
    assert gpu.on_gpu(case._replace(query=x.double()), info_nce) is None
    assert gpu.on_gpu(case, torch.nn.functional.cross_entropy) is None
