"""What it saves to keep the memory of freed tensors: the shipped networks trained with and without, in turns.

``triptych.training.machine.keep_freed_memory`` in one process.

    python benchmarks/memory.py

A step is forward and backward of one fixed batch of random images, of the size and in the number the network was
trained with; the judge also gets four times as many, with which its tensors are well above 32 MB. Without is glibc as
it sets itself up once large blocks have been freed: those of 32 MB and more come from the system and go back to it. The
page faults of a step tell how much of the time it may be. Nothing else should be running.
"""

from __future__ import annotations

from triptych.cli import command

import ctypes
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

from triptych.devices import device_name, effective_precision
from triptych.errors import UserError
from triptych.evaluation.judges import load_judge
from triptych.pipelines.store import load_pipeline
from triptych.training import machine

TURNS, STEPS = 7, 3  # turns of each, steps in a turn
MB = 2**20


def main(precision: str = "bf16") -> None:
    """Time training steps.

    Args:
        precision: bf16, or "no" for fp32; bf16 needs its instructions.
    """
    if not machine.keep_freed_memory():
        raise UserError("This C library has no mallopt: there is nothing to compare.")
    machine.use_all_cores(None, 1)
    precision, note = effective_precision(precision, torch.device("cpu"))
    name, threads = device_name(torch.device("cpu")), torch.get_num_threads()
    print(f"{name}, torch {torch.__version__}, {threads} threads, precision {precision}, medians of {TURNS} turns")
    if note:
        print(f"note: {note}")
    print(f"{'':24}{'kept':>10}{'let go':>10}{'speed':>9}{'faults a step':>22}")
    for title, make in NETWORKS.items():
        network, answer = make()
        kept, gone = compare(network.train(), answer, precision == "bf16")
        ratio = statistics.median(b / a for a, b in zip(kept.seconds, gone.seconds, strict=True))
        seconds = "".join(f"{statistics.median(turns.seconds):8.3f} s" for turns in (kept, gone))
        faults = " / ".join(f"{statistics.median(turns.faults):,.0f}" for turns in (kept, gone))
        print(f"{title:24}{seconds}{ratio:8.2f}x{faults:>22}")


@dataclass
class Turns:
    """Seconds and page faults of a step, a number for each turn."""

    seconds: list[float] = field(default_factory=list)
    faults: list[float] = field(default_factory=list)


def compare(network: torch.nn.Module, answer: Callable[[], torch.Tensor], bf16: bool) -> tuple[Turns, Turns]:
    """Let steps with memory kept and with memory let go take turns."""

    def turn() -> tuple[float, float]:
        start, faults = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                output = answer()
            output.float().square().mean().backward()
            network.zero_grad()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        return (time.perf_counter() - start) / STEPS, faults / STEPS

    kept, gone = Turns(), Turns()
    for _ in range(TURNS):
        for arrange, turns in ((machine.keep_freed_memory, kept), (let_go, gone)):
            arrange()
            turn()  # what the other arrangement left is used up
            seconds, faults = turn()
            turns.seconds.append(seconds)
            turns.faults.append(faults)
    return kept, gone


def let_go() -> None:
    """As glibc sets itself up when blocks of 32 MB and more have been freed."""
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(machine.M_MMAP_MAX, 65536)
    mallopt(machine.M_MMAP_THRESHOLD, 32 * MB)
    mallopt(machine.M_TRIM_THRESHOLD, 64 * MB)


def diffusion(batch: int = 32):
    unet = load_pipeline("pretrained/cifar10-class-conditional").unet
    x = torch.randn(batch, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    t, labels = torch.randint(1000, (batch,)), torch.randint(10, (batch,))
    return unet, lambda: unet(x, t, class_labels=labels).sample


def denoiser(batch: int = 32):
    denoiser = load_pipeline("pretrained/denoiser-cifar10").denoiser
    x = torch.randn(batch, 3, 32, 32)
    return denoiser, lambda: denoiser(x)


def vae(batch: int = 128):
    vae = load_pipeline("pretrained/vae-mnist-z16").vae
    x, eps = torch.randn(batch, 1, 28, 28), torch.randn(batch, vae.config.latent_dim)
    return vae, lambda: vae(x, eps)[0]


def judge(batch: int):
    judge = load_judge("pretrained/judge-cifar10")
    side = judge.processor.size["height"]
    x = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    return judge.model, lambda: judge.model(x).logits


NETWORKS = {"diffusion, batch 32": diffusion, "denoiser, batch 32": denoiser, "VAE, batch 128": vae}
NETWORKS |= {f"judge, batch {batch}": partial(judge, batch) for batch in (256, 1024)}

if __name__ == "__main__":
    command(main)
