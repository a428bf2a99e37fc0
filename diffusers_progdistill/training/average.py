"""The average of the weights that a student ends as."""

import torch
from diffusers.training_utils import EMAModel

from .sharding import local


class WeightAverage(EMAModel):
    """
    diffusers' average with its warm-up, moved by one call an update and not by two and a walk through the network. A
    small network is trained up to 1 % faster by it. Of sharded parameters each process averages what it holds.
    """

    @torch.no_grad()
    def step(self, parameters: list[torch.nn.Parameter]):
        self.optimization_step += 1
        self.cur_decay_value = self.get_decay(self.optimization_step)
        shadows, current = ([local(p) for p in tensors] for tensors in (self.shadow_params, parameters))
        torch._foreach_lerp_(shadows, current, 1 - self.cur_decay_value)

    @torch.no_grad()
    def copy_to(self, parameters: list[torch.nn.Parameter]):
        torch._foreach_copy_([local(p) for p in parameters], [local(p) for p in self.shadow_params])
