"""What a stage trains ends as the average of its weights, as diffusers defines it."""

import pytest
import torch
from helpers.networks import tiny_unet
from helpers.stages import denoising_task, make_run, train

from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.training.monitor import Monitor


class Witness(Monitor):
    """Notes the weights after every update."""

    def __init__(self, accelerator, model):
        super().__init__(accelerator, None, 1)
        self.model, self.seen = model, []

    def on_update(self):
        super().on_update()
        self.seen.append(torch.nn.utils.parameters_to_vector(self.model.parameters()).detach().double())


@pytest.mark.parametrize("decay", [0.3, 0.9999])
def test_a_stage_ends_as_the_average(decay):
    run, model = make_run(train_batch_size=4, learning_rate=1e-2, lr_warmup_steps=0), tiny_unet()
    witness = Witness(run.accelerator, model)
    train(run, denoising_task(Stage("teacher", 12, 3), model, ema_decay=decay), witness)
    # As diffusers warms up: the first update is copied, the k-th after it has a decay of (1 + k) / (10 + k) at most.
    expected = witness.seen[0]
    for k, weights in enumerate(witness.seen[1:], start=1):
        share = min(decay, (1 + k) / (10 + k))
        expected = share * expected + (1 - share) * weights
    found = torch.nn.utils.parameters_to_vector(model.parameters()).double()
    assert (found - expected).abs().max() < 1e-6
    assert (found - witness.seen[-1]).abs().max() > 1e-4
