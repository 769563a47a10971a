"""What is asked of the machine beneath torch."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from triptych.training.machine import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    for _ in range(10):  # 40 MB each: up to 32 glibc learns by itself
        sum(torch.ones(10_000_000) for _ in range(2))
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(what: str) -> int:
    command = [sys.executable, "-c", FAULTS, what]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt (only glibc has)")
def test_freed_memory_is_used_again_without_the_system():
    assert page_faults("keep") < page_faults("let go") / 20
