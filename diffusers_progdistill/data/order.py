"""The order that the images come in, and the loader that reads them in it."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from .images import ImageData


class GlobalOrder(Sampler):
    """
    The order of the data as a function of (seed, stage, epoch) alone, sliced for one process.

    Each update takes the next `global_batch` images of the epoch's permutation; an incomplete last batch is dropped.
    Part m of process r takes slice m * world + r: any split of the same global batch trains on the same images.
    """

    def __init__(self, num_images, global_batch, parts, rank, world, seed, stage, updates, first_update=0):
        self.num_images, self.global_batch, self.parts = num_images, global_batch, parts
        self.rank, self.world, self.seed, self.stage = rank, world, seed, stage
        self.updates, self.first_update = updates, first_update

    def __len__(self):
        return (self.updates - self.first_update) * self.parts

    def __iter__(self):
        per_epoch = self.num_images // self.global_batch
        size = self.global_batch // (self.parts * self.world)
        epoch = None
        for update in range(self.first_update, self.updates):
            if update // per_epoch != epoch:
                epoch = update // per_epoch
                order = np.random.default_rng([self.seed, self.stage, epoch]).permutation(self.num_images)
            start = (update % per_epoch) * self.global_batch
            for part in range(self.parts):
                offset = start + (part * self.world + self.rank) * size
                yield order[offset : offset + size].tolist()


class _Reader(Dataset):
    """The images as [`Batch`]es: what processes that read ahead cannot read must reach the one that counts it."""

    def __init__(self, data: ImageData):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, numbers: list[int]):
        return self.data.read(numbers)


def make_loader(data: ImageData, order: GlobalOrder, num_workers: int) -> Iterator[tuple]:
    """Images and labels of `data` in the given order, read ahead by worker processes if there are any."""
    loader = DataLoader(
        _Reader(data),
        batch_sampler=order,
        num_workers=num_workers,
        collate_fn=_as_is,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if num_workers else None,
    )
    return map(data.noted, loader)


def _as_is(batch):
    return batch
