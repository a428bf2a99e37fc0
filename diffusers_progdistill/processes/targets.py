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
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .base import NoiseLevel, NoiseProcess, expand_like
from .solvers import take_step


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
        times (`torch.Tensor` of shape `(N, k)`): What the network is told at u = i/N, and at the positions between
            that the teacher's other steps start from.
        angles (`torch.Tensor` of shape `(N, k)`): phi at the same positions, in radians.
        weights (`torch.Tensor` of shape `(N, k - 1)`): w_j of the target.
        midpoint (`bool`): Whether the teacher's steps are taken in pairs, by the midpoint rule.
    """

    times: torch.Tensor
    angles: torch.Tensor
    weights: torch.Tensor
    midpoint: bool = False

    @classmethod
    def create(cls, process: NoiseProcess, num_steps: int, factor: int = 2, midpoint: bool = False) -> "TargetGrid":
        """
        The grid of an N-step student whose teacher makes `factor` times as many steps, on the sampling positions of a
        process, in float64 on the CPU. The midpoint rule needs an even `factor`.
        """
        fine = num_steps * factor
        rows = [[j / fine for j in range(i * factor, (i - 1) * factor - 1, -1)] for i in range(1, num_steps + 1)]
        return cls._at_positions(process, rows, midpoint)

    @classmethod
    def create_doubled(cls, process: NoiseProcess, num_steps: int) -> "TargetGrid":
        """
        The grid of an N-step student of Meng et al.'s (2022) stochastic sampler, which learns where two of the 1/N
        steps of an N-step teacher lead, u -> u - 2/N. At u = 1/N the teacher's one step is the target (w = 0).
        """
        rows = [[i / num_steps, (i - 1) / num_steps, (i - 2) / num_steps] for i in range(1, num_steps + 1)]
        rows[0] = [1 / num_steps, 1 / num_steps, 0.0]
        grid = cls._at_positions(process, rows)
        grid.weights[0] = 0.0
        return grid

    @classmethod
    def _at_positions(cls, process: NoiseProcess, rows: list[list[float]], midpoint: bool = False) -> "TargetGrid":
        """The grid of the positions of each row, the last of which is where the step ends: clean data, if it is 0."""
        levels = [[process.level(u) if u > 0 else (0.0, None) for u in row] for row in rows]
        angles = [[angle for angle, _ in row] for row in levels]
        # Where the way begins over which the j-th prediction leads: that of a middle, where its pair does.
        begins = [j - (midpoint and j % 2) for j in range(1, len(rows[0]) - 1)]
        fields = (
            [[time for _, time in row[:-1]] for row in levels],
            [row[:-1] for row in angles],
            [[prediction_weight(row[0], row[j], end) for j, end in zip(begins, row[2:])] for row in angles],
        )
        times, steps, weights = (torch.tensor(field, dtype=torch.float64) for field in fields)
        return cls(times, steps, weights, midpoint)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> "TargetGrid":
        """The same grid on a device, in the dtype of a training run."""
        times, angles, weights = (field.to(device, dtype) for field in (self.times, self.angles, self.weights))
        return TargetGrid(times, angles, weights, self.midpoint)

    def level(self, j: int) -> NoiseLevel:
        """Where the teacher's j-th step starts."""
        return NoiseLevel(self.angles[:, j], self.times[:, j])

    def at(self, index: torch.Tensor) -> "TargetGrid":
        """The rows of a batch: `index` has shape `(batch_size,)` and values in [0, N)."""
        return TargetGrid(self.times[index], self.angles[index], self.weights[index], self.midpoint)


def teacher_target(predict_x0: Callable[..., torch.Tensor], z: torch.Tensor, rows: TargetGrid) -> torch.Tensor:
    """
    The target x~ of Algorithm 2 for a batch of noisy samples.

    Args:
        predict_x0 (`Callable`): `predict_x0(z, level)` -> the teacher's x at a [`NoiseLevel`].
        z (`torch.Tensor` of shape `(batch_size, ...)`): Samples at the student's u.
        rows ([`TargetGrid`]): The grid at each sample's u.

    Returns:
        `torch.Tensor`: x~ of the shape of `z`. It is never clipped.
    """
    start = expand_like(rows.angles[:, 0], z)
    so_far = target = predict_x0(z, rows.level(0))
    for j in range(1, rows.angles.shape[1]):
        angle = expand_like(rows.angles[:, j], z)
        z_j = take_step(z, target, start, angle)
        target = torch.lerp(so_far, predict_x0(z_j, rows.level(j)), expand_like(rows.weights[:, j - 1], z))
        if j % 2 or not rows.midpoint:
            so_far = target
    return target
