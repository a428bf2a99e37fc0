"""Variance preserving processes: a table of betas, or the cosine schedule of the paper.

The canonical schedule of the project is the cosine schedule of Salimans & Ho (2022) with its log-SNR clipped to
[-20, 20], which makes the angle exactly linear in time. Any other variance preserving schedule is a table of betas,
whose angle is interpolated between the entries.
"""

import math
from typing import TypeVar

import torch
from diffusers import DDIMScheduler

from .base import NoiseLevel, NoiseProcess


LOG_SNR_MAX = 20.0
# phi(t) = ANGLE_RANGE * t + ANGLE_MIN: from log-SNR 20 at t = 0 to log-SNR -20 at t = 1.
ANGLE_MIN = math.atan(math.exp(-LOG_SNR_MAX / 2))
ANGLE_RANGE = math.atan(math.exp(LOG_SNR_MAX / 2)) - ANGLE_MIN

NUM_TRAIN_TIMESTEPS = 1024

# One time, or a tensor of them.
T = TypeVar("T", float, torch.Tensor)

# A table counts as the canonical schedule up to float32 rounding of its betas.
CANONICAL_TOLERANCE = 2e-5


def cosine_angle(t: T) -> T:
    """
    Angle of the canonical schedule (section 2 of the paper, with the clipped log-SNR of the official code).

    Args:
        t (`float` or `torch.Tensor`): Continuous time in [0, 1]; 0 is data, 1 is noise.

    Returns:
        `float` or `torch.Tensor`: phi in radians, from 4.54e-5 to pi/2 - 4.54e-5.
    """
    return ANGLE_RANGE * t + ANGLE_MIN


def time_to_timestep(t: T, num_train_timesteps: int = NUM_TRAIN_TIMESTEPS) -> T:
    """
    What the UNet is fed at time t: tau = T * t - 1, a float in [-1, T - 1].

    Args:
        t (`float` or `torch.Tensor`): Continuous time in [0, 1].
        num_train_timesteps (`int`, defaults to 1024): T.
    """
    return num_train_timesteps * t - 1


def canonical_betas(num_train_timesteps: int = NUM_TRAIN_TIMESTEPS) -> list[float]:
    """
    The canonical schedule as the betas of a discrete scheduler with timesteps 0 ... T - 1 (timestep T * t - 1).

    Args:
        num_train_timesteps (`int`, defaults to 1024): T, the number of betas.

    Returns:
        `list[float]`: Betas whose cumulative product is alpha^2 at t = 1/T, 2/T, ..., 1, to double precision.
    """
    alphas_cumprod = [math.cos(cosine_angle(i / num_train_timesteps)) ** 2 for i in range(1, num_train_timesteps + 1)]
    # sin^2 rather than 1 - cos^2: the first beta is 2.5e-6 and would lose half of its digits.
    first = math.sin(cosine_angle(1 / num_train_timesteps)) ** 2
    return [first] + [1 - b / a for a, b in zip(alphas_cumprod, alphas_cumprod[1:])]


def compute_angles(betas: list[float] | torch.Tensor) -> torch.Tensor:
    """
    Angles of a table of betas.

    Args:
        betas (`list[float]` or `torch.Tensor` of shape `(T,)`): Betas in [0, 1].

    Returns:
        `torch.Tensor` of shape `(T,)`: float64 angles at timesteps 0 ... T - 1.
    """
    betas = torch.as_tensor(betas, dtype=torch.float64)
    log_alphas_cumprod = torch.cumsum(torch.log1p(-betas), dim=0)
    # expm1 keeps the digits of 1 - alpha^2 near data; exp(-inf) = 0 is a zero terminal SNR.
    return torch.atan2(torch.sqrt(-torch.expm1(log_alphas_cumprod)), torch.exp(log_alphas_cumprod / 2))


class BetaProcess(NoiseProcess):
    """
    A variance preserving process at any (fractional) timestep.

    Args:
        betas (`list[float]`): The schedule as a table; recognised as the canonical one when it is.
        num_train_timesteps (`int`): T of the model, which spaces the sampling grid.

    Attributes:
        is_canonical (`bool`): Whether the exact formula is used in place of the table.
    """

    def __init__(self, betas: list[float], num_train_timesteps: int) -> None:
        self.num_train_timesteps, self.betas = num_train_timesteps, list(betas)
        angles = compute_angles(betas)
        time = torch.arange(1, len(betas) + 1, dtype=torch.float64) / len(betas)
        self.is_canonical = len(betas) == num_train_timesteps and bool(
            (angles - cosine_angle(time)).abs().max() < CANONICAL_TOLERANCE
        )
        # Timestep -1 is clean data. Between entries the angle is linear, finite at zero terminal SNR too.
        self._table = torch.cat([torch.zeros(1, dtype=torch.float64), angles])
        self._copies: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    def angle(self, timestep: float) -> float:
        """Angle in radians at one timestep in [-1, T - 1], in double precision on the host."""
        if self.is_canonical:
            return cosine_angle((timestep + 1) / self.num_train_timesteps)
        position = min(max(timestep + 1, 0.0), len(self._table) - 1.0)
        low = min(int(position), len(self._table) - 2)
        start, end = self._table[low].item(), self._table[low + 1].item()
        return start + (position - low) * (end - start)

    def _table_on(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        # Copied once, not in every update.
        if (device, dtype) not in self._copies:
            self._copies[device, dtype] = self._table.to(device, dtype)
        return self._copies[device, dtype]

    def angles(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Angles in radians at a tensor of timesteps, on its device: float64 where the device has it."""
        dtype = torch.float32 if timesteps.device.type == "mps" else torch.float64
        timesteps = timesteps.to(dtype)
        if self.is_canonical:
            return cosine_angle((timesteps + 1) / self.num_train_timesteps)
        table = self._table_on(timesteps.device, dtype)
        position = (timesteps + 1).clamp(0, len(table) - 1)
        low = position.floor().clamp(max=len(table) - 2)
        return torch.lerp(table[low.long()], table[low.long() + 1], position - low)

    @property
    def max_angle(self) -> float:
        """The largest angle of a timestep that the model was trained at."""
        return cosine_angle(1.0) if self.is_canonical else self._table[-1].item()

    def levels(self, positions: torch.Tensor) -> NoiseLevel:
        """Angle and time at u: timestep T u - 1, which DDIM's `"trailing"` grid has at u = i/N where N divides T."""
        time = time_to_timestep(positions, self.num_train_timesteps)
        if self.is_canonical:
            return NoiseLevel(cosine_angle(positions), time)
        return NoiseLevel(self.angles(time).to(positions.dtype), time)

    def network_times(self, angles: torch.Tensor) -> torch.Tensor:
        """
        The (fractional) timesteps of the same log-SNR as `angles`: the inverse of [`angles`] on the range of the
        model. Outside it a table has its first timestep and its last one, and the canonical schedule goes on.

        Args:
            angles (`torch.Tensor`): phi in radians.

        Returns:
            `torch.Tensor`: float32, which is what networks must be asked with.
        """
        dtype = torch.float32 if angles.device.type == "mps" else torch.float64
        angles = angles.to(dtype)
        if self.is_canonical:
            return (self.num_train_timesteps * ((angles - ANGLE_MIN) / ANGLE_RANGE) - 1).float()
        # Without the entry for clean data: the model was not trained there.
        table = self._table_on(angles.device, dtype)[1:]
        angles = angles.clamp(table[0], table[-1])
        high = torch.searchsorted(table, angles).clamp(1, len(table) - 1)
        start, end = table[high - 1], table[high]
        return (high - 1 + (angles - start) / (end - start).clamp_min(torch.finfo(dtype).tiny)).float()

    def stock_scheduler(self, num_steps: int) -> DDIMScheduler:
        """DDIM on these betas. Its timesteps are whole, so `num_steps` must divide T."""
        if self.num_train_timesteps % num_steps:
            raise ValueError(
                f"DDIMScheduler steps exactly where the number of steps divides {self.num_train_timesteps}:"
                f" {num_steps} does not"
            )
        return DDIMScheduler(
            num_train_timesteps=self.num_train_timesteps,
            trained_betas=self.betas,
            timestep_spacing="trailing",
            clip_sample=False,
            set_alpha_to_one=True,
            steps_offset=1,
        )
