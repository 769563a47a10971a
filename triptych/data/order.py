"""Which images each step sees, and the loader that brings them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from triptych.data.image_set import ImageSet
from triptych.errors import UserError
from triptych.seeds import keyed_generator


class BatchOrder(torch.utils.data.Sampler):
    """Which images each step sees: a function of (seed, step) alone.

    The data is shuffled anew every epoch and the epochs are laid end to end, so every image comes once an
    epoch and no batch is short. A step's global batch is split among the processes in order: two processes with
    half the batch each see together what one process sees. Skipping is arithmetic, not iteration.

    Args:
        num_images: size of the data set.
        batch_size: images per process and step.
        seed: of the shuffling.
        start, stop: steps to yield, [start, stop).
        process_index, num_processes: which share of each global batch.
        by_visit: yield visits, epoch * num_images + index, to a data set that shows an image otherwise at each visit.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        stop: int = 1,
        process_index: int = 0,
        num_processes: int = 1,
        by_visit: bool = False,
    ):
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.start, self.stop = start, stop
        self.process_index, self.num_processes, self.by_visit = process_index, num_processes, by_visit
        self._orders: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        share = self.visits if self.by_visit else self.indices
        return (share(step) for step in range(self.start, self.stop))

    def indices(self, step: int) -> list[int]:
        """This process's share of the global batch at `step`."""
        return [visit % self.num_images for visit in self.visits(step)]

    def visits(self, step: int) -> list[int]:
        """The same, each index with its epoch: epoch * num_images + index."""
        first = (step * self.num_processes + self.process_index) * self.batch_size
        positions = torch.arange(first, first + self.batch_size)
        epochs, places = positions // self.num_images, positions % self.num_images
        visits = [
            epoch * self.num_images + self._order(epoch)[places[epochs == epoch]] for epoch in epochs.unique().tolist()
        ]
        return torch.cat(visits).tolist()

    def _order(self, epoch: int) -> torch.Tensor:
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = torch.randperm(self.num_images, generator=keyed_generator("order", self.seed, epoch))
        return self._orders[epoch]


def make_loader(images: ImageSet, order: BatchOrder, num_workers: int = 0) -> torch.utils.data.DataLoader:
    """Batches of `images` in `order`: dicts as :class:`ImageSet` returns them.

    Raises:
        UserError: while iterating, of an image that cannot be decoded, in whichever process it was met.
    """
    return _Loader(
        _Answers(images),
        batch_sampler=order,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )


class _Answers(torch.utils.data.Dataset):
    """Batches, or the error instead: torch would dress an error of a worker in its traceback."""

    def __init__(self, images: ImageSet):
        self._images = images

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor] | UserError:
        try:
            return self._images.__getitems__(indices)
        except UserError as error:
            return error


class _Loader(torch.utils.data.DataLoader):
    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


def _as_it_is(batch: Any) -> Any:
    return batch
