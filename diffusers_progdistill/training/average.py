"""The average of the weights that a student ends as."""

import torch
from diffusers.training_utils import EMAModel

from .sharding import take_local


class WeightAverage(EMAModel):
    """
    diffusers' average with its warm-up. Its own two operations round otherwise than this one, while it warms up; like
    them it is one of torch's operations on lists. Of sharded parameters each process averages what it holds.
    """

    @torch.no_grad()
    def step(self, parameters: list[torch.nn.Parameter]) -> None:
        self.optimization_step += 1
        self.cur_decay_value = self.get_decay(self.optimization_step)
        averages, current = ([take_local(tensor) for tensor in some] for some in (self.shadow_params, parameters))
        torch._foreach_lerp_(averages, current, 1 - self.cur_decay_value)
