"""How fast generated images are scored: the judge's features, and the distances between them.

    python benchmarks/scoring.py pretrained/judge-cifar10

Batches go through `extract` and through the bare network in turn, so the ratio tells what the image processor and the
copies cost; then all images are scored as scripts/score.py does, without drawing them. Nothing else should be running.
"""

from __future__ import annotations

from triptych.cli import command

import statistics
import time

import torch

from triptych.devices import device_name
from triptych.evaluation.extraction import extract
from triptych.evaluation.judges import load_judge
from triptych.evaluation.scores import distances, recognised
from triptych.training import machine

TURNS, BATCH = 9, 250


def main(judge: str, count: int = 10_000, image_size: int = 32, num_bootstrap: int = 20) -> None:
    """Time scoring.

    Args:
        judge: folder of a classifier of scripts/train_classifier.py.
        count: images scored, against as many.
        image_size: their side.
        num_bootstrap: resamplings for the interval of the Frechet distance.
    """
    machine.use_all_cores(None, 1)
    critic = load_judge(judge)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, image_size, image_size), dtype=torch.uint8, generator=generator)
    some = images[: 2 * BATCH]
    prepared = [critic.prepare(batch) for batch in some.split(BATCH)]

    def bare() -> None:
        with torch.no_grad():
            for batch in prepared:
                critic.model(batch)

    def seconds(work) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    whole = lambda: extract(critic, some, BATCH)  # noqa: E731
    for work in (whole, bare):
        work()
    turns = [(seconds(whole), seconds(bare)) for _ in range(TURNS)]
    name, threads = device_name(torch.device("cpu")), torch.get_num_threads()
    print(f"{name}, torch {torch.__version__}, {threads} threads, fp32")
    for title, times in zip(("extract", "bare network"), zip(*turns, strict=True), strict=True):
        print(f"{title:19} {len(some) / statistics.median(times):8.0f} images/s")
    print(f"extract / network   {statistics.median(b / a for a, b in turns):8.1%}   median of {TURNS} turns")

    start = time.perf_counter()
    seen = extract(critic, images)
    features = time.perf_counter() - start
    reference = {key: value.flip(0) + 0.1 for key, value in seen.items()}
    distances(critic, seen, reference, num_bootstrap, seed=0)
    names = critic.class_names
    recognised(names, names, seen["logits"], torch.arange(count) % len(names))
    print(f"{count:,} images       {time.perf_counter() - start:8.1f} s, of which features {features:.1f} s")
    print(f"peak memory         {machine.peak_memory_mb():8.0f} MB")


if __name__ == "__main__":
    command(main)
