"""The target of Algorithm 2: what one student step must predict to land where k teacher steps land (k = 2 there).

The paper inverts the student's DDIM step, which loses three digits in float32. Put the teacher's steps in, and the
target is a convex combination of the teacher's predictions of x, one step after the other:

    x~_1 = x(z, t),    x~_j+1 = (1 - w_j) x~_j + w_j x(z_j, t_j),    z_j = DDIM(z, x~_j; t -> t_j),

with weights that depend on the grid alone and are evaluated in float64, once a stage.

By the midpoint rule (not in the paper) the teacher's steps are taken in pairs: the first leads to the middle, where
the teacher is asked for the x that leads over both. That costs as much and is of second order, so that a teacher which
is an ODE, and not yet a student of some grid, needs far fewer steps. The prediction at the start of a pair leads to
the middle and is then forgotten; the one at the middle gets the weight of both.
"""

import math
from dataclasses import dataclass

import torch

from .betas import cosine_angle, time_to_timestep
from .prediction import to_sample


def prediction_weight(angle: float, angle_mid: float, angle_end: float) -> float:
    """
    The weight w_j of the prediction at t', on the way from t to t''.

    w = (alpha'' - sigma'' alpha'/sigma') / (alpha'' - sigma'' alpha_t/sigma_t)
      = sin(phi' - phi'') sin(phi_t) / (sin(phi_t - phi'') sin(phi')),
    the second form without cancellation. When the student's step ends in clean data (phi'' = 0) it is 1.

    Args:
        angle, angle_mid, angle_end (`float`): phi at t, t' and t'', in radians, descending.
    """
    if angle_end == 0:
        return 1.0
    return (math.sin(angle_mid - angle_end) * math.sin(angle)) / (math.sin(angle - angle_end) * math.sin(angle_mid))


@dataclass
class TargetGrid:
    """
    All that a stage needs to know of an N-step student's grid, one row for each i = 1 ... N at index i - 1.

    Attributes:
        timesteps (`torch.Tensor` of shape `(N, k)`): What the UNet is fed at t = i/N, and at the times between that
            the teacher's other steps start from.
        angles (`torch.Tensor` of shape `(N, k)`): phi at the same times, in radians.
        weights (`torch.Tensor` of shape `(N, k - 1)`): w_j of the target.
        midpoint (`bool`): Whether the teacher's steps are taken in pairs, by the midpoint rule.
    """

    timesteps: torch.Tensor
    angles: torch.Tensor
    weights: torch.Tensor
    midpoint: bool = False

    @classmethod
    def create(
        cls,
        num_steps: int,
        num_train_timesteps: int,
        dtype=torch.float32,
        device=None,
        factor: int = 2,
        midpoint: bool = False,
    ) -> "TargetGrid":
        """
        The grid of an N-step student whose teacher makes `factor` times as many steps, evaluated in float64 and stored
        as `dtype` on `device`. The midpoint rule needs an even `factor`.
        """
        fine = num_steps * factor
        rows = [[j / fine for j in range(i * factor, (i - 1) * factor - 1, -1)] for i in range(1, num_steps + 1)]
        return cls._of_times(rows, num_train_timesteps, dtype, device, midpoint)

    @classmethod
    def create_doubled(cls, num_steps: int, num_train_timesteps: int, dtype=torch.float32, device=None):
        """
        The grid of an N-step student of Meng et al.'s (2022) stochastic sampler, which learns where two of the 1/N
        steps of an N-step teacher lead, t -> t - 2/N. At t = 1/N the teacher's one step is the target (w = 0).
        """
        rows = [[i / num_steps, (i - 1) / num_steps, (i - 2) / num_steps] for i in range(1, num_steps + 1)]
        rows[0] = [1 / num_steps, 1 / num_steps, 0.0]
        grid = cls._of_times(rows, num_train_timesteps, dtype, device)
        grid.weights[0] = 0.0
        return grid

    @classmethod
    def _of_times(
        cls, rows: list[list[float]], num_train_timesteps: int, dtype, device, midpoint: bool = False
    ) -> "TargetGrid":
        """The grid of the times of each row, the last of which is where the step ends: clean data, if it is 0."""
        angles = [[cosine_angle(t) if t > 0 else 0.0 for t in times] for times in rows]
        # Where the way begins over which the j-th prediction leads: that of a middle, where its pair does.
        begins = [j - (midpoint and j % 2) for j in range(1, len(rows[0]) - 1)]
        fields = (
            [[time_to_timestep(t, num_train_timesteps) for t in times[:-1]] for times in rows],
            [row[:-1] for row in angles],
            [[prediction_weight(row[0], row[j], end) for j, end in zip(begins, row[2:])] for row in angles],
        )
        tensors = (torch.tensor(field, dtype=torch.float64).to(device, dtype) for field in fields)
        return cls(*tensors, midpoint=midpoint)

    def at(self, index: torch.Tensor) -> "TargetGrid":
        """The rows of a batch: `index` has shape `(batch_size,)` and values in [0, N)."""
        return TargetGrid(self.timesteps[index], self.angles[index], self.weights[index], self.midpoint)


def teacher_target(teacher, z: torch.Tensor, rows: TargetGrid, prediction_type: str) -> torch.Tensor:
    """
    The target x~ of Algorithm 2 for a batch of noisy images.

    Args:
        teacher (`Callable`): `teacher(z, timestep)` -> the teacher's output.
        z (`torch.Tensor` of shape `(batch_size, channels, height, width)`): Real images noised to the student's t.
        rows ([`TargetGrid`]): The grid at each image's t.
        prediction_type (`str`): The teacher's.

    Returns:
        `torch.Tensor`: x~ of the shape of `z`. It is never clipped.
    """

    def predict(z_j, j):
        angle = _like(z, rows.angles[:, j])
        output = teacher(z_j, rows.timesteps[:, j]).to(z.dtype)
        return to_sample(output, z_j, torch.cos(angle), torch.sin(angle), prediction_type)

    start = _like(z, rows.angles[:, 0])
    sigma = torch.sin(start)
    so_far = target = predict(z, 0)
    for j in range(1, rows.angles.shape[1]):
        angle = _like(z, rows.angles[:, j])
        # DDIM: z_j = (sigma_j/sigma) z + sin(phi - phi_j)/sigma x.
        z_j = (torch.sin(angle) / sigma) * z + (torch.sin(start - angle) / sigma) * target
        target = torch.lerp(so_far, predict(z_j, j), _like(z, rows.weights[:, j - 1]))
        if j % 2 or not rows.midpoint:
            so_far = target
    return target


def _like(z: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A value for each image, to be broadcast over its pixels."""
    return values.view(-1, *(1,) * (z.ndim - 1))
