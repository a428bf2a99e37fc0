"""Between two updates nothing of an update is kept: a long training needs no more memory than a short one."""

import gc
import warnings
import weakref

import pytest
import torch
from helpers.networks import tiny_unet
from helpers.stages import distillation_task, make_run, train

from diffusers_progdistill.objectives.distillation import DistillationLoss
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.examples import BUFFER_BATCHES
from diffusers_progdistill.training.monitor import Monitor


BATCH, UPDATES = 16, 2 * BUFFER_BATCHES + 4
KINDS = [(None, 1), (0.9, 1), (None, 2)]


class Passes:
    """What goes through a network: whether something still refers to inputs and outputs of its passes."""

    def __init__(self, network):
        self.seen = []
        self.handle = network.register_forward_hook(self._note)

    def _note(self, _, arguments, output):
        tensor = output if isinstance(output, torch.Tensor) else output[0]
        self.seen += [weakref.ref(arguments[0]), weakref.ref(tensor)]

    def alive(self) -> int:
        return sum(reference() is not None for reference in self.seen)


def live_bytes():
    """Bytes of all tensors that the garbage collector knows, each memory once."""
    gc.collect()
    with warnings.catch_warnings():
        # Some modules warn when they are looked at.
        warnings.simplefilter("ignore")
        storages = {}
        for thing in gc.get_objects():
            if isinstance(thing, torch.Tensor):
                storage = thing.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


class AfterEachUpdate(Monitor):
    """Notes what `look` says after every update."""

    def __init__(self, accelerator, look):
        super().__init__(accelerator, None, 1)
        self.look, self.found = look, []

    def on_update(self):
        super().on_update()
        self.found.append(self.look())


def watch(make_look, ema, reuse):
    """What a look says after each update of a small stage."""
    run, student, teacher = make_run(train_batch_size=BATCH, logging_steps=2), tiny_unet(), tiny_unet()
    loss = DistillationLoss("snr", clip_margin=DistillationConfig.clip_margin)
    task = distillation_task(Stage("steps-4", UPDATES, 5, 4, reuse=reuse), student, teacher, loss, ema)
    monitor = AfterEachUpdate(run.accelerator, make_look(student, teacher))
    train(run, task, monitor)
    assert len(monitor.found) == UPDATES
    return monitor.found


@pytest.mark.parametrize("ema, reuse", KINDS)
def test_what_an_update_has_seen_and_predicted_is_gone_with_it(ema, reuse):
    passes = []

    def look(student, teacher):
        passes.extend((Passes(student), Passes(teacher)))
        return lambda: tuple(p.alive() for p in passes)

    found = watch(look, ema, reuse)
    assert len(passes[0].seen) == 2 * UPDATES
    # Of the newest update the student's pass and the teacher's two, which the loop still holds.
    assert max(student for student, _ in found) <= 2 and max(teacher for _, teacher in found) <= 4
    # With the last update these go too.
    assert [p.alive() for p in passes] == [0, 0]


@pytest.mark.parametrize("ema, reuse", KINDS)
def test_later_updates_need_what_earlier_ones_did(ema, reuse):
    """Whatever is kept for a whole stage: it is there after the first updates, and does not grow."""
    counts = live_bytes()
    probe = torch.zeros(1000)
    assert live_bytes() >= counts + probe.nbytes
    updates = iter(range(1, UPDATES + 1))
    found = watch(lambda *_: lambda: live_bytes() if next(updates) in (3, UPDATES) else None, ema, reuse)
    # The last block of shared targets is smaller than the first; not even one image more is kept.
    assert found[-1] - found[2] < 64
