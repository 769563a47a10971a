"""Where tensors are computed, and in which precision."""

from __future__ import annotations

import atexit
import os
import platform
import time
from pathlib import Path

import torch
from accelerate import PartialState

from triptych.errors import UserError


def find_device(name: str | torch.device | None = None) -> torch.device:
    """The device called `name`; without one the accelerator, if there is any, and else the CPU.

    Every script that computes outside training asks here. ``accelerate launch --cpu`` counts as asking for the CPU.

    Raises:
        UserError: there is no such device here.
    """
    if not name:
        if on_cpu_by_request():
            return torch.device("cpu")
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.zeros(1, device=name).device
    except Exception as error:  # whatever the libraries of the many kinds of devices raise
        raise UserError(
            f"device {name!r} is none that there is here ({' '.join(str(error).split())[:200]}). Leave it out for the "
            f"best one, or say cpu."
        ) from None


def on_cpu_by_request() -> bool:
    """Whether the environment asks for the CPU, as ``accelerate launch --cpu`` makes it."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "y", "on")


def on_cpu() -> bool:
    """What accelerate must be told: it joins several CPU processes (gloo) only if it knows that it is on a CPU."""
    return on_cpu_by_request() or not torch.accelerator.is_available()


def join_processes() -> PartialState:
    """This process among those that the launcher started, joined with them.

    To be called before a device is chosen: it makes this process's own accelerator the current one.
    """
    state = PartialState(cpu=on_cpu())
    atexit.register(state.destroy_process_group)  # its threads must not outlive the interpreter, which would abort
    return state


def seconds_now(device: torch.device) -> float:
    """A clock to measure what `device` does: it is read when all that was asked of the device is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def memory_format(device: torch.device) -> torch.memory_format:
    """How a convolutional network's weights should lie: an accelerator's kernels want channels last, a CPU's don't."""
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last


def effective_precision(asked: str, device: torch.device) -> tuple[str, str | None]:
    """The precision to train in, and a note where it is not the one asked for.

    bf16 without bf16 instructions is emulated and slower than fp32, so there it becomes "no".
    """
    if asked != "bf16":
        return asked, None
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
        native = any(getattr(torch.cpu, name, lambda: False)() for name in probes)
        mend = "--mixed_precision no says so in advance"
    elif device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        mend = "--mixed_precision fp16 is faster there"
    else:
        return asked, None
    return (
        (asked, None) if native else ("no", f"this {device.type} has no bf16 instructions: training in fp32; {mend}.")
    )


def device_name(device: torch.device) -> str:
    """The processor's own name, and for a CPU how many cores there are."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return f"{names[0].split(':')[1].strip() if names else platform.processor()}, {os.cpu_count()} cores"
