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
        # The last step of a sampler goes to clean data, not to the schedule's own t = 0.
        ends = [0.0] + [cosine_angle(t) for t in times[:-1]]
        rows = {
            "timestep": [time_to_timestep(t, num_train_timesteps) for t in times],
            "timestep_mid": [time_to_timestep(t, num_train_timesteps) for t in middles],
            "angle": [cosine_angle(t) for t in times],
            "angle_mid": [cosine_angle(t) for t in middles],
        }
        rows["weight"] = list(map(second_prediction_weight, rows["angle"], rows["angle_mid"], ends))
        return cls(**{k: torch.tensor(v, dtype=torch.float64).to(device, dtype) for k, v in rows.items()})

    def at(self, index: torch.Tensor) -> "HalvingGrid":
        """The rows of a batch: `index` has shape `(batch_size,)` and values in [0, N)."""
        fields = (self.timestep, self.timestep_mid, self.angle, self.angle_mid, self.weight)
        return HalvingGrid(*(field[index] for field in fields))


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
