"""The examples of every update of a stage: fresh ones, or each of the teacher's targets for several updates."""

import math
from collections.abc import Iterator

import torch

from ..data import BatchLayout, GlobalOrder, make_loader
from ..objectives.base import Batch, Examples, Objective
from ..objectives.stage import Stage
from ..seeds import derive_seed
from .run import Run


# Batches whose targets are kept for the updates that share them.
BUFFER_BATCHES = 8


class BatchNoise:
    """
    The times, noise, flips and label drops of an update. They are a function of (seed, stage, update), drawn for the
    global batch and sliced, so that any split of it among processes and micro-batches agrees.
    """

    def __init__(self, run: Run, stage: Stage) -> None:
        self.config, self.stage, self.global_batch = run.config, stage, run.global_batch
        self.null_label, self.codec = run.data.num_classes, run.codec
        self.device = run.accelerator.device
        self.generator = torch.Generator(self.device)

    def draw(self, update: int, data_shape: tuple[int, ...]) -> tuple[torch.Tensor | None, ...]:
        """Uniform numbers, noise, and flips and label drops (or `None`) of the global batch of one update."""
        self.generator.manual_seed(derive_seed(self.config.seed, self.stage.seed, update))
        options, dropout = {"generator": self.generator, "device": self.device}, self.stage.label_dropout
        uniform = torch.rand(self.global_batch, **options)
        flips = torch.rand(self.global_batch, **options) < 0.5 if self.config.random_flip else None
        noise = torch.randn(self.global_batch, *data_shape, **options)
        drops = torch.rand(self.global_batch, **options) < dropout if dropout else None
        return uniform, noise, flips, drops

    def make_batch(self, drawn: tuple, rows: slice, images: torch.Tensor, labels: torch.Tensor | None) -> Batch:
        """The micro-batch of these `uint8` images, with its slice of an update's draws."""
        uniform, noise, flips, drops = drawn
        images = images.to(self.device, non_blocking=True)
        if flips is not None:
            images = torch.where(flips[rows, None, None, None], images.flip(-1), images)
        conditioning = {}
        if labels is not None:
            labels = labels.to(self.device, non_blocking=True)
            labels = labels if drops is None else labels.masked_fill(drops[rows], self.null_label)
            conditioning["class_labels"] = labels
        return Batch(self.codec.encode(images), conditioning, uniform[rows], noise[rows])


class ExampleStream:
    """
    Reads images, draws times and noise, and asks the objective for examples, which may ask the teacher.

    Where R > 1 updates share a target, the teacher is asked for `BUFFER_BATCHES` batches, and R times as many updates
    mix them: each place of the global batch takes its examples in an order of its own every time, so that any split of
    the batch among processes agrees, and each example is used R times. A run that is resumed asks the teacher again
    for the batches that its update mixes.

    Args:
        run ([`Run`]): The options, processes and images.
        objective ([`Objective`]): Makes examples of batches.
        stage ([`Stage`]): Its number of updates, and of those that share a target.
        first_update (`int`): The one that is asked for first.
    """

    def __init__(self, run: Run, objective: Objective, stage: Stage, first_update: int) -> None:
        self.run, self.objective, self.stage = run, objective, stage
        self.noise, self.block = BatchNoise(run, stage), None
        data, accelerator = run.data, run.accelerator
        self.data_shape = run.codec.data_shape((data.channels, data.resolution, data.resolution))
        self.layout = BatchLayout(
            run.global_batch,
            accelerator.gradient_accumulation_steps,
            accelerator.process_index,
            accelerator.num_processes,
        )
        fresh, first = math.ceil(stage.updates / stage.reuse), first_update
        if stage.reuse > 1:
            first = first_update // self.block_updates * BUFFER_BATCHES
        order = GlobalOrder(len(data), self.layout, run.config.seed, stage.seed, fresh, first_update=first)
        self.batches = iter(make_loader(data, order, run.config.dataloader_num_workers))

    @property
    def block_updates(self) -> int:
        """Updates that share one buffer."""
        return self.stage.reuse * BUFFER_BATCHES

    def read_update(self, update: int) -> Iterator[Examples]:
        """The examples of this process, one micro-batch of the update after the other."""
        return self._read_fresh(update) if self.stage.reuse == 1 else self._mix(update)

    def _read_fresh(self, number: int) -> Iterator[Examples]:
        drawn, is_labelled = self.noise.draw(number, self.data_shape), self.objective.student.has_classes
        for micro_batch in range(self.layout.micro_batches):
            images, labels = next(self.batches)
            rows = self.layout.find_rows(micro_batch)
            batch = self.noise.make_batch(drawn, rows, images, labels if is_labelled else None)
            with self.run.accelerator.autocast():
                examples = self.objective.make_examples(batch, number)
            yield examples

    def _mix(self, update: int) -> Iterator[Examples]:
        block, place = divmod(update, self.block_updates)
        if block != self.block:
            self._fill(block)
        for micro_batch, buffer in enumerate(self.buffers):
            chosen = self.orders[place][self.layout.find_rows(micro_batch)]
            yield buffer.select(chosen, torch.arange(len(chosen), device=chosen.device))

    def _fill(self, block: int) -> None:
        """Ask the teacher for the batches of a block of updates, and draw who takes which when."""
        left = math.ceil((self.stage.updates - block * self.block_updates) / self.stage.reuse)
        count = min(BUFFER_BATCHES, left)
        batches = [list(self._read_fresh(block * BUFFER_BATCHES + k)) for k in range(count)]
        self.buffers = [Examples.stack(list(examples)) for examples in zip(*batches)]
        seed = derive_seed(self.run.config.seed, self.stage.seed, block, self.stage.reuse)
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand(self.stage.reuse, count, self.run.global_batch, generator=generator)
        self.orders = draws.argsort(1).flatten(0, 1).to(self.noise.device, non_blocking=True)
        self.block = block
