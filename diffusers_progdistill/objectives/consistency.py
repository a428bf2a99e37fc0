"""Consistency distillation (Song et al., 2023) by the schedule of easy consistency tuning (Geng et al., 2024).

A student's x is to be the same all along a path of the teacher: what it says at angle phi is compared with what its
own average, the target network, says where one DDIM step of the teacher leads, at a smaller angle phi_r. At first
phi_r is far from phi; it comes nearer as the training goes on. With t = tan(phi), the noise level of EDM,

    r / t = 1 - n(t) / 2^a,    n(t) = 1 + 8 sigmoid(-t),

where a = 1 ... 8 grows by one after each eighth of the updates. The boundary condition f(z, 0) = z holds of itself
for the x of v-prediction.
"""

import copy
from typing import Any

import torch

from ..denoisers.base import Denoiser
from ..processes.base import NoiseLevel, add_noise, expand_like
from ..processes.solvers import take_step
from .base import Batch, Examples, TeacherObjective
from .stage import Stage


# Of log t, which is normal (Geng et al., for CIFAR-10; x is in [-1, 1] there too).
LOG_MEAN, LOG_STD = -1.1, 2.0
# The parts of the training in each of which phi_r comes nearer by half, and k of n(t) = 1 + k sigmoid(-t).
DOUBLINGS, SLOPE = 8, 8.0
# Decay of the average that is the target network (Song et al., 2023, for ImageNet and LSUN).
TARGET_DECAY = 0.95
# Threshold of the pseudo-Huber distance, in units of the root mean square (Song & Dhariwal, 2023).
HUBER_C = 0.00054


class ConsistencyObjective(TeacherObjective):
    """
    Args:
        student, teacher ([`Denoiser`]): On one process.
        updates (`int`): Of the stage, over which the two noise levels come nearer.
    """

    def __init__(self, student: Denoiser, teacher: Denoiser, updates: int) -> None:
        super().__init__(student, "constant")
        self.teacher, self.updates = teacher, updates
        self.target = copy.deepcopy(student.network).requires_grad_(False).eval()
        self.networks = {"target": self.target}

    @classmethod
    def build(cls, student: Denoiser, teacher: Denoiser, stage: Stage, config: Any) -> "ConsistencyObjective":
        return cls(student, teacher, stage.updates)

    @staticmethod
    def count_example_passes(factor: int, evaluations: int) -> int:
        # A step of the teacher, and the target network.
        return evaluations + 1

    @torch.no_grad()
    def make_examples(self, batch: Batch, update: int = 0) -> Examples:
        process = self.student.process
        # The quantile of the normal distribution, short of the infinities at its ends.
        quantile = torch.special.ndtri(batch.uniform.double().clamp(1e-6, 1 - 1e-6))
        angle = torch.atan(torch.exp(LOG_MEAN + LOG_STD * quantile)).clamp(max=process.max_angle)
        nearer = self.find_nearer_angle(angle, update)
        level, end = (NoiseLevel(a.float(), process.network_times(a)) for a in (angle, nearer))
        z = add_noise(batch.data, batch.noise, expand_like(level.angle, batch.data))
        x = self.teacher.predict_x0(z, level, batch.conditioning)
        start, stop = expand_like(angle, z), expand_like(nearer, z)
        moved = take_step(z, x, start, stop).float()
        output = self.student.predict(moved, end, batch.conditioning, self.target)
        target = self.student.to_x0(output, moved, end)
        # Where phi_r is 0 the step has landed on x.
        return Examples(z, *level, torch.where(stop > 0, target, x), nearer.float() == 0, batch.conditioning)

    def find_nearer_angle(self, angle: torch.Tensor, update: int) -> torch.Tensor:
        """phi_r of each phi, in radians."""
        t = torch.tan(angle)
        doublings = 1 + min(DOUBLINGS * update // self.updates, DOUBLINGS - 1)
        return torch.atan(t * (1 - count_shares(t) / 2**doublings).clamp(min=0))

    def compute_losses(self, network: torch.nn.Module, examples: Examples) -> dict[str, torch.Tensor]:
        output = self.student.predict(examples.z, examples.level, examples.conditioning, network)
        error = self.student.to_x0(output, examples.z, examples.level) - examples.target
        square = error.float().square().flatten(1).mean(1)
        # The difference without its cancellation.
        distance = square / ((square + HUBER_C**2).sqrt() + HUBER_C)
        # The weight is 1 / (t - r) but for 2^a, which is the same for a whole batch: Adam would divide it away.
        t = torch.tan(examples.angle).clamp(min=1e-3)
        return {"loss": (distance / (t * count_shares(t))).mean()}

    @torch.no_grad()
    def after_update(self, update: int) -> None:
        for mine, new in zip(self.target.parameters(), self.student.network.parameters()):
            mine.lerp_(new, 1 - TARGET_DECAY)


def count_shares(t: torch.Tensor) -> torch.Tensor:
    """n(t) of the schedule: n(t) / 2^a is the share of t that lies between r and t."""
    return 1 + SLOPE * torch.sigmoid(-t)
