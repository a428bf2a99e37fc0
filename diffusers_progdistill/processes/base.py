"""The one convention of the package: every Gaussian noise process is an angle.

A process makes z = a x + b eps of data x and noise eps. Divided by sqrt(a^2 + b^2) it is variance preserving,
z = cos(phi) x + sin(phi) eps with phi = atan2(b, a), and the step that its users call DDIM, an Euler step of the flow
or an Euler step of the ODE in sigma is the same rotation of it. Inside the package only angles exist; a
[`NoiseProcess`] knows what the world outside calls them.
"""

import abc
import math
from typing import NamedTuple

import torch
from diffusers import SchedulerMixin


# A number for all samples, or a tensor that broadcasts against them.
Scalar = float | torch.Tensor


class NoiseLevel(NamedTuple):
    """
    How noisy the samples of a batch are.

    Attributes:
        angle (`torch.Tensor` of shape `(batch_size,)`): phi in radians, from 0 (data) to pi/2 (pure noise).
        time (`torch.Tensor` of shape `(batch_size,)`): What the network is told. It comes from the process with the
            angle, and neither is computed from the other: stock schedulers round them differently.
    """

    angle: torch.Tensor
    time: torch.Tensor


class NoiseProcess(abc.ABC):
    """
    A noise process as angles, as the network's time and as the sampling grid of stock diffusers.

    A sampling position u in (0, 1] numbers the noise levels that a pipeline steps through: an N-step grid is u = i/N,
    i = N ... 1, so that the grid of N steps is part of that of 2 N. Every family has its own spacing in between.
    """

    @abc.abstractmethod
    def levels(self, positions: torch.Tensor) -> NoiseLevel:
        """
        Angle and time at sampling positions, computed in the dtype of `positions`.

        Args:
            positions (`torch.Tensor` of shape `(batch_size,)`): u in (0, 1].
        """

    @abc.abstractmethod
    def network_times(self, angles: torch.Tensor) -> torch.Tensor:
        """The float32 times that a network is told at `angles`; outside of its range those of the nearest angle."""

    @property
    @abc.abstractmethod
    def max_angle(self) -> float:
        """The largest angle that a network of this process was trained at."""

    @property
    def ends_in_noise(self) -> bool:
        """Whether its largest angle is pure noise. Stock pipelines start from pure noise in any case."""
        return math.cos(self.max_angle) < 1e-3

    @property
    def has_zero_terminal_snr(self) -> bool:
        """Whether there is no signal at its largest angle, up to float32 rounding: epsilon says nothing of x there."""
        return math.cos(self.max_angle) < 1e-7

    def level(self, position: float) -> tuple[float, float]:
        """Angle and time at one sampling position, in float64 on the host."""
        angle, time = self.levels(torch.tensor([position], dtype=torch.float64))
        return angle.item(), time.item()

    def network_input(self, z: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        """
        What the network is given for the variance preserving sample z.

        Args:
            z (`torch.Tensor` of shape `(batch_size, ...)`): cos(phi) x + sin(phi) eps.
            angle (`torch.Tensor`): phi, to be broadcast against z.
        """
        return z

    def stock_scheduler(self, num_steps: int) -> SchedulerMixin:
        """
        The scheduler of stock diffusers that samples a student of `num_steps` steps exactly.

        Raises:
            `ValueError`: If there is none for this number.
        """
        raise ValueError(f"no stock scheduler samples {type(self).__name__} in {num_steps} steps exactly")


def add_noise(sample: torch.Tensor, noise: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """z = cos(phi) x + sin(phi) eps, the forward process; `angle` must broadcast against `sample`."""
    return torch.cos(angle) * sample + torch.sin(angle) * noise


def get_velocity(sample: torch.Tensor, noise: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """v = cos(phi) eps - sin(phi) x = dz/dphi (appendix D of the paper)."""
    return torch.cos(angle) * noise - torch.sin(angle) * sample


def log_snr(angle: torch.Tensor) -> torch.Tensor:
    """log(alpha^2 / sigma^2) of an angle in radians, in (0, pi/2)."""
    return -2 * torch.log(torch.tan(angle))


def expand_like(values: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """A value for each sample of a batch, to be broadcast over the rest of it."""
    return values.view(-1, *(1,) * (z.ndim - 1))
