"""Between two updates nothing is kept but weights, moments, the average, the teacher and the images."""

import gc
import warnings

import pytest
import torch
from helpers.networks import tiny_unet

from diffusers_progdistill.data import load_data
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.loop import train_stage
from diffusers_progdistill.training.monitor import Monitor
from diffusers_progdistill.training.setup import make_accelerator
from diffusers_progdistill.training.stages import HalvingObjective, Stage


BATCH = 16


def live_bytes():
    """Bytes of all tensors that something refers to, each memory once."""
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


class Scale(Monitor):
    """Weighs everything after every update."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.weights = []

    def on_update(self):
        super().on_update()
        self.weights.append(live_bytes())


@pytest.mark.parametrize("ema, reuse", [(None, 1), (0.9, 1), (None, 2)])
def test_what_is_kept_between_updates(ema, reuse):
    before = live_bytes()
    config = DistillationConfig(dataset_name="digits", train_batch_size=BATCH, logging_steps=2)
    accelerator, data = make_accelerator(config, None), load_data(config)
    student, teacher = tiny_unet(), tiny_unet().requires_grad_(False)
    parameters = 4 * sum(p.numel() for p in student.parameters())
    objective = HalvingObjective(
        teacher, "v_prediction", 4, "v_prediction", "snr", 1024, huber_c=config.huber_c, clip_loss=True
    )
    scale, stage = Scale(accelerator, None, 1), Stage("steps-4", 4, 12, 5, reuse=reuse)
    scale.start(stage, 1, 1, BATCH)
    train_stage(accelerator, student, objective, data, stage, config, scale, ema_decay=ema)
    # Student, teacher, two moments; the average.
    networks = (4 + (ema is not None)) * parameters
    images = data.all_images().nbytes + data.labels.nbytes
    batch = 4 * BATCH * 64
    # The batch that has just been used, its noise and target; of the targets that serve twice, eight batches.
    examples = batch * (8 + (2 * 8 if reuse > 1 else 0))
    assert max(scale.weights) - before <= networks + images + examples
    assert max(scale.weights) - min(scale.weights) <= 2 * batch
