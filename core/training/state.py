"""What Accelerate and torch keep for the whole process, from one run to the next."""

import atexit
import os

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.state import AcceleratorState, is_initialized


def on_cpu(device: str) -> bool:
    """Return whether to train on CPUs: asked for, or a launcher started processes where there is no GPU."""
    return device == "cpu" or (int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available())


def shared_state(device: str, precision: str | None = None) -> PartialState:
    """Return Accelerate's state for a device, forgetting that of an earlier run where it was for another one.

    Accelerate sets up device and precision once a process. The runs of a sweep share one, and may differ in both. An
    `Accelerator` made before is not for use afterwards, unless both are the same. The process group stays from run to
    run, and is destroyed when the process ends.

    Args:
        device: cpu, or auto.
        precision: no, bf16 or fp16; None: not known yet.
    """
    cpu = on_cpu(device)
    state = PartialState(cpu=cpu)
    if state.num_processes > 1:
        atexit.unregister(_end_group)
        atexit.register(_end_group)
    elif (state.device.type == "cpu") != (cpu or not torch.accelerator.is_available()):
        AcceleratorState._reset_state(reset_partial_state=True)
        state = PartialState(cpu=cpu)
    if precision is not None and is_initialized() and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    return state


def _end_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
