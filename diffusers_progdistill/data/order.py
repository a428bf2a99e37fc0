"""The order that the images come in, and the loader that reads them in it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from .images import ImageData


@dataclass(frozen=True)
class BatchLayout:
    """How the batch of an update is divided: into micro-batches, and each of them among the processes."""

    global_batch: int
    micro_batches: int = 1
    rank: int = 0
    world: int = 1

    def find_rows(self, micro_batch: int) -> slice:
        """The places in the global batch of this process's share of a micro-batch."""
        size = self.global_batch // (self.micro_batches * self.world)
        start = (micro_batch * self.world + self.rank) * size
        return slice(start, start + size)


class GlobalOrder(Sampler):
    """
    The order of the data as a function of (seed, stage, epoch) alone, sliced for one process: any [`BatchLayout`] of
    the same global batch trains on the same images. An epoch's incomplete last batch is dropped.
    """

    def __init__(
        self, num_images: int, layout: BatchLayout, seed: int, stage: int, updates: int, first_update: int = 0
    ) -> None:
        self.num_images, self.layout, self.seed, self.stage = num_images, layout, seed, stage
        self.updates, self.first_update = updates, first_update

    def __iter__(self) -> Iterator[list[int]]:
        per_epoch, epoch = self.num_images // self.layout.global_batch, None
        for update in range(self.first_update, self.updates):
            if update // per_epoch != epoch:
                epoch = update // per_epoch
                order = np.random.default_rng([self.seed, self.stage, epoch]).permutation(self.num_images)
            batch = order[(update % per_epoch) * self.layout.global_batch :]
            for micro_batch in range(self.layout.micro_batches):
                yield batch[self.layout.find_rows(micro_batch)].tolist()


def make_loader(data: ImageData, order: GlobalOrder, num_workers: int) -> Iterator[tuple]:
    """Images and labels of `data` in the given order, read ahead by worker processes if there are any."""
    loader = DataLoader(
        data,
        # What comes next in the order is a batch already.
        batch_size=None,
        sampler=order,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if num_workers else None,
    )
    # What processes that read ahead cannot read is counted in this one.
    return map(data.take, loader)
