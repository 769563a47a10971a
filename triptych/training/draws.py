"""The random numbers of a step, the same however many processes share it."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Draws:
    """Draws for the global batch of a step, of which every process keeps its share.

    Attributes:
        generator: the random numbers of this step, a function of (seed, step).
        device: where they are drawn.
        step: steps taken.
        process_index, num_processes: which share.
    """

    generator: torch.Generator
    device: torch.device
    step: int
    process_index: int
    num_processes: int

    def _share(self, draw: Callable[..., torch.Tensor], size: int, *rest: int) -> torch.Tensor:
        """Draw for the global batch and keep this process's part: the numbers don't depend on who shares it."""
        everyones = draw((size * self.num_processes, *rest), generator=self.generator, device=self.device)
        return everyones[self.process_index * size : (self.process_index + 1) * size]

    def randn(self, size: int, *rest: int) -> torch.Tensor:
        """Unit Gaussian noise of this step, (size, *rest)."""
        return self._share(torch.randn, size, *rest)

    def rand(self, size: int, *rest: int) -> torch.Tensor:
        """Uniform numbers in [0, 1) of this step, (size, *rest)."""
        return self._share(torch.rand, size, *rest)

    def spread(self, size: int) -> torch.Tensor:
        """Numbers in [0, 1) of this step, evenly spread over the batches of all processes, each of them uniform (Kingma
        et al. 2021, appendix I.1), (size,)."""
        everyones = size * self.num_processes
        shift = torch.rand((), generator=self.generator, device=self.device)
        return (shift + torch.arange(everyones, device=self.device) / everyones).remainder(1)[
            self.process_index * size : (self.process_index + 1) * size
        ]

    def randint(self, high: int, size: int) -> torch.Tensor:
        """Uniform integers in [0, high) of this step, (size,)."""
        return self._share(lambda shape, **where: torch.randint(high, shape, **where), size)

    def positions(self, size: int) -> range:
        """Places of this step's images in the stream of all that the run sees, the same however many processes."""
        first = (self.step * self.num_processes + self.process_index) * size
        return range(first, first + size)
