"""Rectified flow: z_flow = (1 - t) x + t eps, of which a network predicts the velocity u = eps - x.

    tan(phi) = t / (1 - t),    z = (alpha + sigma) z_flow,    t = sigma / (alpha + sigma)

An Euler step z_flow' = z_flow + (t' - t) u is the rotation of z from phi to phi'.
"""

import math

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from .base import NoiseLevel, NoiseProcess


class FlowProcess(NoiseProcess):
    """
    A flow whose sampling positions are shifted towards noise: t = s u / (1 + (s - 1) u), or tan(phi) = s u / (1 - u).

    Args:
        shift (`float`, defaults to 1.0): s.
        time_scale (`float`, defaults to 1000.0): The network is told `time_scale` times t.
        counts_from_noise (`bool`, defaults to `False`): It is told that of 1 - t.
    """

    def __init__(self, shift: float = 1.0, time_scale: float = 1000.0, counts_from_noise: bool = False) -> None:
        self.shift, self.time_scale, self.counts_from_noise = shift, time_scale, counts_from_noise

    def levels(self, positions: torch.Tensor) -> NoiseLevel:
        # Up to a common factor, which neither has a use for.
        noise, signal = self.shift * positions, 1 - positions
        return NoiseLevel(torch.atan2(noise, signal), self._tell(noise, signal))

    def network_times(self, angles: torch.Tensor) -> torch.Tensor:
        """The float32 times of any angles: a flow is defined from data to noise."""
        angles = angles.clamp(0, math.pi / 2)
        return self._tell(torch.sin(angles), torch.cos(angles)).float()

    def _tell(self, noise: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        """The network's time where noise and signal are in the proportion t to 1 - t."""
        return self.time_scale * (signal if self.counts_from_noise else noise) / (noise + signal)

    @property
    def max_angle(self) -> float:
        return math.pi / 2

    def network_input(self, z: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        """z_flow = z / (alpha + sigma)."""
        return z / (torch.cos(angle) + torch.sin(angle))

    def stock_scheduler(self, num_steps: int) -> FlowMatchEulerDiscreteScheduler:
        """
        The Euler scheduler whose grid is ours where a pipeline passes it no sigmas, as that of Stable Diffusion 3.

        Its own ramp of N points ends at 1/T and not at 1/N, is shifted by s', and then stretched so that it ends at
        `shift_terminal`. All three are Moebius maps of the index of a step, as ours is. They agree everywhere for

            s' = N s g / (N s g - (s - 1)),    g = (1 - 1/T) / (N - 1),    shift_terminal = t(1/N).

        A pipeline finds log(s') at every resolution, and with this dynamic shift the scheduler shifts once: with a
        fixed one it shifts twice, or once, depending on its version (huggingface/diffusers#13243).
        """
        scheduler, shift = FlowMatchEulerDiscreteScheduler, self.shift
        if num_steps == 1:
            # From t = 1, whatever the shift, and a ramp of one point cannot be stretched.
            return scheduler(shift=shift)
        terminal = shift / (num_steps + shift - 1)
        if shift == 1:
            return scheduler(shift_terminal=terminal)
        default_steps = scheduler().config.num_train_timesteps
        scaled = num_steps * shift * (1 - 1 / default_steps) / (num_steps - 1)
        log_shift = math.log(scaled / (scaled - (shift - 1)))
        return scheduler(use_dynamic_shifting=True, base_shift=log_shift, max_shift=log_shift, shift_terminal=terminal)
