"""The examples of every update of a stage: fresh ones, or each of the teacher's targets for several updates."""

import math
from collections.abc import Iterator

import torch

from ..data import BatchLayout, GlobalOrder, ImageData, make_loader
from ..seeds import derive_seed
from .stages import Draws, Examples, Objective, Stage


# Batches whose targets are kept for the updates that share them.
BUFFER_BATCHES = 8


class Feed:
    """
    Reads images, draws times and noise, and asks the teacher.

    Where R > 1 updates share a target, the teacher is asked for `BUFFER_BATCHES` batches, and R times as many updates
    mix them: each place of the global batch takes its examples in an order of its own every time, so that any split of
    the batch among processes agrees, and each example is used R times. A run that is resumed asks the teacher again
    for the batches that its update mixes.

    Args:
        accelerator ([`~accelerate.Accelerator`]): Precision, processes and accumulation.
        objective ([`Objective`]): Makes examples of batches.
        data ([`ImageData`]): The images.
        draws ([`Draws`]): Of the stage.
        config ([`TrainingConfig`]): Batch options.
        stage ([`Stage`]): Its number of updates, and of those that share a target.
        first_update (`int`): The one that is asked for first.
        labelled (`bool`): Whether the network is fed labels.
    """

    def __init__(
        self,
        accelerator,
        objective: Objective,
        data: ImageData,
        draws: Draws,
        config,
        stage: Stage,
        first_update: int,
        labelled: bool,
    ):
        self.accelerator, self.objective, self.draws, self.labelled = accelerator, objective, draws, labelled
        self.image_shape = (data.channels, data.resolution, data.resolution)
        self.parts, self.part_size = accelerator.gradient_accumulation_steps, config.train_batch_size
        self.block = None
        self.updates, self.reuse = stage.updates, stage.reuse
        fresh, first = math.ceil(self.updates / self.reuse), first_update
        if self.reuse > 1:
            first = first_update // self.block_updates * BUFFER_BATCHES
        world, rank = accelerator.num_processes, accelerator.process_index
        layout = BatchLayout(draws.global_batch, self.parts, rank, world)
        order = GlobalOrder(len(data), layout, config.seed, draws.stage, fresh, first_update=first)
        self.batches = iter(make_loader(data, order, config.dataloader_num_workers))

    @property
    def block_updates(self) -> int:
        """Updates that share one buffer."""
        return self.reuse * BUFFER_BATCHES

    def of_update(self, update: int) -> Iterator[Examples]:
        """The examples of this process, one part of the update after the other."""
        return self._fresh(update) if self.reuse == 1 else self._mixed(update)

    def rows_of(self, part: int) -> slice:
        """The places in the global batch of a part of this process's batch."""
        start = (part * self.accelerator.num_processes + self.accelerator.process_index) * self.part_size
        return slice(start, start + self.part_size)

    def _fresh(self, number: int) -> Iterator[Examples]:
        drawn = self.draws.of_update(number, self.image_shape)
        for part in range(self.parts):
            images, labels = next(self.batches)
            batch = self.draws.part(drawn, images, labels if self.labelled else None, self.rows_of(part).start)
            with self.accelerator.autocast():
                examples = self.objective.examples(batch)
            yield examples

    def _mixed(self, update: int) -> Iterator[Examples]:
        block, place = divmod(update, self.block_updates)
        if block != self.block:
            self._fill(block)
        for part, buffer in enumerate(self.buffers):
            chosen = self.orders[place][self.rows_of(part)]
            rows = torch.arange(len(chosen), device=chosen.device)
            yield Examples(*(None if field is None else field[chosen, rows] for field in buffer))

    def _fill(self, block: int):
        """Ask the teacher for the batches of a block of updates, and draw who takes which when."""
        left = math.ceil((self.updates - block * self.block_updates) / self.reuse)
        count = min(BUFFER_BATCHES, left)
        batches = [list(self._fresh(block * BUFFER_BATCHES + k)) for k in range(count)]
        self.buffers = [_stacked([batch[part] for batch in batches]) for part in range(self.parts)]
        seed = derive_seed(self.draws.seed, self.draws.stage, block, self.reuse)
        draws = torch.rand(self.reuse, count, self.draws.global_batch, generator=torch.Generator().manual_seed(seed))
        self.orders = draws.argsort(1).flatten(0, 1).to(self.draws.device, non_blocking=True)
        self.block = block


def _stacked(batches: list[Examples]) -> list[torch.Tensor | None]:
    """The fields of examples, of shape `(number of batches, batch_size, ...)`."""
    columns = zip(*((b.z, b.timestep, b.angle, b.target, b.labels, b.is_last) for b in batches))
    return [None if column[0] is None else torch.stack(column) for column in columns]
