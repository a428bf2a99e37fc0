"""Invariant 6: an update reads nothing back from the device, except on logging updates."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffusers_progdistill.data import load_data
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.loop import train_stage
from diffusers_progdistill.training.monitor import Monitor
from diffusers_progdistill.training.setup import make_accelerator
from diffusers_progdistill.training.stage import DistillationObjective, Stage


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
    from helpers.networks import tiny_unet

    def reads_of(updates):
        whole_reads.clear()
        options = {"gradient_accumulation_steps": parts, "random_flip": True}
        config = DistillationConfig(dataset_name="digits", train_batch_size=16, logging_steps=1000, **options)
        accelerator = make_accelerator(config, None)
        teacher = tiny_unet().requires_grad_(False)
        objective = DistillationObjective(
            teacher, "v_prediction", 4, "v_prediction", "snr", 1024, huber_c=config.huber_c, clip_loss=True
        )
        stage = Stage("steps-4", 4, updates, 5, reuse=reuse)
        monitor = Monitor(accelerator, None, stage.forward_passes)
        monitor.start(stage, 1, 1, 16)
        with Reads() as reads:
            train_stage(accelerator, unet, objective, load_data(config), stage, config, monitor, ema_decay=0.9)
        return reads.count, len(whole_reads)

    # Both runs log once, at their end; what the further updates read is theirs.
    assert reads_of(20) == reads_of(2)
