"""The halving target of Algorithm 2: what one student step must predict to land where two teacher steps land.

The paper inverts the student's DDIM step, which loses three digits in float32. Put both teacher steps in, and the
target is a convex combination of the teacher's two predictions of x,

    x~ = (1 - w2) x(z_t, t) + w2 x(z_t', t'),   t' = t - 1/(2N),  t'' = t - 1/N,

with a weight that depends on the grid alone and is evaluated in float64, once a stage.
"""

import math
from dataclasses import dataclass

import torch

from .noise_schedule import cosine_angle, time_to_timestep
from .parameterization import to_sample


def second_prediction_weight(angle: float, angle_mid: float, angle_end: float) -> float:
    """
    The weight w2 of the teacher's second prediction.

    w2 = (alpha'' - sigma'' alpha'/sigma') / (alpha'' - sigma'' alpha_t/sigma_t)
       = sin(phi' - phi'') sin(phi_t) / (sin(phi_t - phi'') sin(phi')),
    the second form without cancellation. When the student's step ends in clean data (phi'' = 0) it is 1.

    Args:
        angle, angle_mid, angle_end (`float`): phi at t, t' and t'', in radians, descending.
    """
    if angle_end == 0:
        return 1.0
    return (math.sin(angle_mid - angle_end) * math.sin(angle)) / (math.sin(angle - angle_end) * math.sin(angle_mid))


@dataclass
class HalvingGrid:
    """
    All that a stage needs to know of an N-step student's grid, one entry for each i = 1 ... N at index i - 1.

    Attributes:
        timestep, timestep_mid (`torch.Tensor` of shape `(N,)`): What the UNet is fed at t = i/N and at t'.
        angle, angle_mid (`torch.Tensor` of shape `(N,)`): phi at t and at t', in radians.
        weight (`torch.Tensor` of shape `(N,)`): w2 of the target.
    """

    timestep: torch.Tensor
    timestep_mid: torch.Tensor
    angle: torch.Tensor
    angle_mid: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def create(cls, num_steps: int, num_train_timesteps: int, dtype=torch.float32, device=None) -> "HalvingGrid":
        """Evaluate the grid of an `num_steps`-step student in float64 and store it as `dtype` on `device`."""
        times = [i / num_steps for i in range(1, num_steps + 1)]
        middles = [(2 * i - 1) / (2 * num_steps) for i in range(1, num_steps + 1)]
        return cls._of_times(times, middles, [0.0, *times[:-1]], num_train_timesteps)._to(dtype, device)

    @classmethod
    def create_doubled(cls, num_steps: int, num_train_timesteps: int, dtype=torch.float32, device=None):
        """
        The grid of an N-step student of Meng et al.'s (2022) stochastic sampler, which learns where two of the 1/N
        steps of an N-step teacher lead, t -> t - 2/N. At t = 1/N the teacher's one step is the target (w2 = 0).
        """
        times = [i / num_steps for i in range(1, num_steps + 1)]
        middles = [times[0], *times[:-1]]
        ends = [0.0, 0.0, *times[:-2]][:num_steps]
        grid = cls._of_times(times, middles, ends, num_train_timesteps)
        grid.weight[0] = 0.0
        return grid._to(dtype, device)

    @classmethod
    def _of_times(cls, times, middles, ends, num_train_timesteps: int) -> "HalvingGrid":
        """The rows in float64. An end of 0 is clean data, to which a sampler's last step goes, not angle(0)."""
        rows = {
            "timestep": [time_to_timestep(t, num_train_timesteps) for t in times],
            "timestep_mid": [time_to_timestep(t, num_train_timesteps) for t in middles],
            "angle": [cosine_angle(t) for t in times],
            "angle_mid": [cosine_angle(t) for t in middles],
        }
        angles_end = [cosine_angle(t) if t > 0 else 0.0 for t in ends]
        rows["weight"] = list(map(second_prediction_weight, rows["angle"], rows["angle_mid"], angles_end))
        return cls(**{k: torch.tensor(v, dtype=torch.float64) for k, v in rows.items()})

    def _fields(self) -> tuple[torch.Tensor, ...]:
        return (self.timestep, self.timestep_mid, self.angle, self.angle_mid, self.weight)

    def _to(self, dtype, device) -> "HalvingGrid":
        return HalvingGrid(*(field.to(device, dtype) for field in self._fields()))

    def at(self, index: torch.Tensor) -> "HalvingGrid":
        """The rows of a batch: `index` has shape `(batch_size,)` and values in [0, N)."""
        return HalvingGrid(*(field[index] for field in self._fields()))


def halving_target(teacher, z: torch.Tensor, rows: HalvingGrid, prediction_type: str) -> torch.Tensor:
    """
    The target x~ of Algorithm 2 for a batch of noisy images.

    Args:
        teacher (`Callable`): `teacher(z, timestep)` -> the teacher's output.
        z (`torch.Tensor` of shape `(batch_size, channels, height, width)`): Real images noised to the student's t.
        rows ([`HalvingGrid`]): The grid at each image's t.
        prediction_type (`str`): The teacher's.

    Returns:
        `torch.Tensor`: x~ of the shape of `z`. It is never clipped.
    """
    angle, angle_mid, weight = (v[:, None, None, None] for v in (rows.angle, rows.angle_mid, rows.weight))
    alpha, sigma = torch.cos(angle), torch.sin(angle)
    alpha_mid, sigma_mid = torch.cos(angle_mid), torch.sin(angle_mid)
    first = to_sample(teacher(z, rows.timestep).to(z.dtype), z, alpha, sigma, prediction_type)
    # DDIM: z' = (sigma'/sigma) z + sin(phi - phi')/sigma x.
    z_mid = (sigma_mid / sigma) * z + (torch.sin(angle - angle_mid) / sigma) * first
    output = teacher(z_mid, rows.timestep_mid).to(z.dtype)
    second = to_sample(output, z_mid, alpha_mid, sigma_mid, prediction_type)
    return torch.lerp(first, second, weight)
