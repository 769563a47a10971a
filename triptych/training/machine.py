"""What this machine is and can do."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import distribution, version
from typing import Any

import torch

from triptych.paths import PACKAGE, is_checkout

# of glibc's malloc.h, for mallopt(3)
M_MMAP_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -4, -3, -1
LIBRARIES = ("torch", "diffusers", "accelerate", "datasets", "transformers")


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
    keeping them changes nothing. By benchmarks/memory.py a judge's training step became up to 31 % faster (128x128
    images, batch 256), one of the shipped judge 2 %. The price is that memory once used stays with the process, which
    reuses it, until it ends. Other C libraries (macOS, musl) have no ``mallopt`` and are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def circumstances() -> dict[str, Any]:
    """Under which this process was started, for the records of a run."""
    return {
        "num_threads": torch.get_num_threads(),
        "versions": versions(),
        "commit": git_commit(),
        "arguments": sys.argv[1:],
    }


def git_commit() -> str | None:
    """The commit this code stands at, "-dirty" when changed since; None where it is not known."""
    if not is_checkout():  # git would answer for the repository that the environment happens to lie in
        origin = json.loads(distribution("triptych").read_text("direct_url.json") or "{}")  # of pip install git+...
        return origin.get("vcs_info", {}).get("commit_id", "")[:12] or None
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory_mb(device: torch.device | None = None) -> float:
    """The most memory taken so far where the computing is done, in MB (2^20 bytes).

    On an accelerator with memory of its own that of this process's tensors; on a CPU, on Apple's chips, whose memory is
    shared, and without a device the resident memory of this process.
    """
    if device is not None and device.type not in ("cpu", "mps"):
        return torch.accelerator.max_memory_allocated(device) / 2**20
    # ru_maxrss is in KiB on Linux, in bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
