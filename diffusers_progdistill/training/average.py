"""The average of the weights that a student ends as."""

import torch
from diffusers.training_utils import EMAModel


class WeightAverage(EMAModel):
    """
    diffusers' average with its warm-up, moved by one call an update and not by two and a walk through the network. A
    small network is trained up to 1 % faster by it.
    """

    @torch.no_grad()
    def step(self, parameters: list[torch.nn.Parameter]):
        self.optimization_step += 1
        self.cur_decay_value = self.get_decay(self.optimization_step)
        torch._foreach_lerp_(self.shadow_params, parameters, 1 - self.cur_decay_value)
