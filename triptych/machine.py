"""What this machine is and can do."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from triptych.config import UserError

# of glibc's malloc.h, for mallopt(3)
M_MMAP_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -4, -3, -1

LIBRARIES = ("torch", "diffusers", "accelerate", "datasets", "transformers")


def find_device(name: str | None) -> torch.device:
    """The device called `name`, or the best there is.

    Raises:
        UserError: there is no such device here.
    """
    if not name:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.zeros(1, device=name).device
    except Exception as error:  # whatever the libraries of the many kinds of devices raise
        raise UserError(
            f"device {name!r} is none that there is here ({' '.join(str(error).split())[:200]}). Leave it out for the "
            f"best one, or say cpu."
        ) from None


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


def use_all_cores(num_threads: int | None, num_local_processes: int) -> None:
    """Give torch `num_threads`, or this process's share of the cores.

    ``accelerate launch`` sets OMP_NUM_THREADS=1 unless told otherwise, which would idle all cores but one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(num_threads or max(1, cores // max(1, num_local_processes)))


def keep_freed_memory() -> bool:
    """Let the C library keep the memory of freed tensors for the next ones; whether it could be told to.

    glibc takes blocks of 32 MB and more from the system and gives them back when they are freed, so every step of
    training on a CPU has its large activations mapped and zeroed anew, page by page. Where all tensors are smaller
    keeping them changes nothing; of a step of a judge it saved up to 31 % (128x128 images, batch 256), of the shipped
    one's 2 % (benchmarks/memory.py). The price is that memory once used stays with the process, which reuses it, until
    it ends. Other C libraries (macOS, musl) have no ``mallopt`` and are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def device_name(device: torch.device) -> str:
    """The processor's own name, and for a CPU how many cores there are."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return f"{names[0].split(':')[1].strip() if names else platform.processor()}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def git_commit() -> str | None:
    """The commit this code stands at, "-dirty" when changed since; None outside a checkout."""
    command = [
        "git",
        "-C",
        str(Path(__file__).resolve().parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far (ru_maxrss is in KiB on Linux, in bytes on macOS)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
