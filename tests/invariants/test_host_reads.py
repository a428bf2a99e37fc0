"""Invariant 6: an update reads nothing back from the device, except on logging updates; nor does sampling."""

import pytest
import torch
from helpers.stages import distillation_task, make_run, train
from torch.utils._python_dispatch import TorchDispatchMode

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler
from diffusers_progdistill.objectives.distillation import DistillationLoss
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.training.config import DistillationConfig


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for the device: scalars that are read, and with them `item`, `bool`, `float`."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def whole_reads(monkeypatch):
    """Counts whole tensors that are read: on a CPU they need no operation that a dispatcher sees."""
    calls = []
    for name in ("tolist", "numpy", "cpu"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda *a, _original=original, **k: (calls.append(1), _original(*a, **k))[1]
        )
    return calls


@pytest.mark.parametrize("reuse", [1, 2])
@pytest.mark.parametrize("parts", [1, 2])
def test_only_logging_updates_read(unet, whole_reads, reuse, parts):
    loss = DistillationLoss("snr", DistillationConfig.huber_c, DistillationConfig.clip_margin)

    def reads_of(updates):
        whole_reads.clear()
        options = {"gradient_accumulation_steps": parts, "random_flip": True}
        run = make_run(train_batch_size=16, logging_steps=1000, **options)
        task = distillation_task(Stage("steps-4", updates, 5, 4, reuse=reuse), unet, loss=loss, ema_decay=0.9)
        with Reads() as reads:
            train(run, task)
        return reads.count, len(whole_reads)

    # Both runs log once, at their end; what the further updates read is theirs.
    assert reads_of(20) == reads_of(2)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_sampling_reads_nothing_from_the_device(unet, num_steps):
    """Steps are counted, not looked up, so that the host runs ahead of the device through a whole call."""
    pipeline = ProgressiveDistillationPipeline(unet, ProgressiveDistillationScheduler())
    pipeline.set_progress_bar_config(disable=True)
    with Reads() as reads:
        pipeline(2, num_inference_steps=num_steps, output_type="pt")
    assert reads.count == 0
