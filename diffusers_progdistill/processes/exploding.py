"""Variance exploding processes, y + s eps of data y: EDM, and the score networks of Song et al. (2021).

z = cos(phi) x + sin(phi) eps, where x is y, moved and scaled so that its deviation is about 1. An Euler step of the
ODE in s, (y + s eps)' = (y + s eps) + (s' - s) eps, is the rotation of z from phi to phi'.
"""

import abc
import math

import torch
from diffusers import EDMEulerScheduler

from .base import NoiseLevel, NoiseProcess


class ExplodingProcess(NoiseProcess):
    """
    A process whose time is s: tan(phi) = s / unit.

    Args:
        sigma_min, sigma_max (`float`): The range that the network was trained on.
        unit (`float`): s at which the noise is as strong as the signal.
    """

    def __init__(self, sigma_min: float, sigma_max: float, unit: float) -> None:
        self.sigma_min, self.sigma_max, self.unit = sigma_min, sigma_max, unit

    @abc.abstractmethod
    def sigmas(self, positions: torch.Tensor) -> torch.Tensor:
        """s at sampling positions u."""

    @abc.abstractmethod
    def tell(self, sigmas: torch.Tensor) -> torch.Tensor:
        """What the network is told at s."""

    def levels(self, positions: torch.Tensor) -> NoiseLevel:
        sigmas = self.sigmas(positions)
        return NoiseLevel(torch.atan(sigmas / self.unit), self.tell(sigmas))

    def network_times(self, angles: torch.Tensor) -> torch.Tensor:
        """The float32 times at `angles`, within the range of s."""
        # Before the tangent, which has another sign beyond pi/2.
        angles = angles.clamp(math.atan(self.sigma_min / self.unit), self.max_angle)
        return self.tell(self.unit * torch.tan(angles)).float()

    @property
    def max_angle(self) -> float:
        return math.atan(self.sigma_max / self.unit)


class EDMProcess(ExplodingProcess):
    """
    EDM (Karras et al., 2022): y has the standard deviation sigma_data, and our x is y / sigma_data. Its networks see
    z = c_in (y + s eps) and are told ln(s)/4. As c_skip and c_out make cos(phi) and sin(phi), their output F is -v.

    Sampling positions are even in s^(1/rho): s(u)^(1/rho) = max^(1/rho) + (1 - u) (min^(1/rho) - max^(1/rho)).

    Args:
        sigma_min, sigma_max, sigma_data, rho (`float`): As in the config of [`EDMEulerScheduler`].
    """

    def __init__(self, sigma_min: float, sigma_max: float, sigma_data: float, rho: float = 7.0) -> None:
        super().__init__(sigma_min, sigma_max, unit=sigma_data)
        self.rho = rho

    def sigmas(self, positions: torch.Tensor) -> torch.Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (high + (1 - positions) * (low - high)) ** self.rho

    def tell(self, sigmas: torch.Tensor) -> torch.Tensor:
        return torch.log(sigmas) / 4

    def stock_scheduler(self, num_steps: int) -> EDMEulerScheduler:
        """Stock's grid is even too, but has `sigma_min` itself as its last point: there ours has s(1/N)."""
        last = self.sigmas(torch.tensor(1 / num_steps, dtype=torch.float64)).item()
        return EDMEulerScheduler(last, self.sigma_max, self.unit, rho=self.rho)


class VarianceExplodingProcess(ExplodingProcess):
    """
    y + s eps on images y = (x + 1)/2 in [0, 1], so that s = 1/2 is as strong as x. Its networks see that and are told
    s. Sampling positions are even in log(s). Stock samplers of it are stochastic or of second order.

    Args:
        sigma_min, sigma_max (`float`): As in the config of [`ScoreSdeVeScheduler`].
    """

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        super().__init__(sigma_min, sigma_max, unit=0.5)

    def sigmas(self, positions: torch.Tensor) -> torch.Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** positions

    def tell(self, sigmas: torch.Tensor) -> torch.Tensor:
        return sigmas

    def network_input(self, z: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        """(z / cos(phi) + 1) / 2."""
        return (z / torch.cos(angle) + 1) / 2
