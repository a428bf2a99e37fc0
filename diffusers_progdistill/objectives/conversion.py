"""Conversion: a student on one process learns what a teacher on another says of the data at the same log-SNR.

Two processes differ only in when they reach a noise level. As angles they are the same there, and so is the sample z:
the teacher is given it at the (fractional) time at which its own process has that angle. With guidance the student
learns the guided teacher (Meng et al., 2022, stage one).
"""

import math

import torch

from ..denoisers.base import Denoiser
from ..processes.base import NoiseLevel, expand_like
from ..processes.weighting import loss_weight
from .base import Batch
from .denoising import DenoisingObjective


# Below this log-SNR the x of an epsilon teacher is its error divided by a small alpha, and the data teach better
# (docs/convert.md has what was compared).
EPSILON_LOG_SNR_MIN = -6.0
# Share of the SNR + 1 weight that converting from epsilon keeps where SNR vanishes (see docs/convert.md).
NOISY_END_WEIGHT = 0.02


class ConversionObjective(DenoisingObjective):
    """
    Args:
        student ([`Denoiser`]), weighting (`str`): As in [`Objective`].
        teacher ([`Denoiser`]): What the student learns from, on its own process, with its guidance.
    """

    def __init__(self, student: Denoiser, weighting: str, teacher: Denoiser) -> None:
        super().__init__(student, weighting)
        self.teacher = teacher
        # Noisier than this the teacher is not the target.
        self.max_angle = teacher.process.max_angle
        if teacher.prediction_type == "epsilon":
            self.max_angle = min(self.max_angle, math.atan(math.exp(-EPSILON_LOG_SNR_MIN / 2)))

    def make_target(self, z: torch.Tensor, angle: torch.Tensor, batch: Batch) -> torch.Tensor:
        # Noisier: the teacher is asked at its noisiest, with the alpha and sigma of that. Cleaner: at its first time,
        # with the alpha and sigma of z.
        covered = angle.clamp(max=self.max_angle)
        level = NoiseLevel(covered, self.teacher.process.network_times(covered))
        x, guidance = self.teacher.predict_x0_and_guidance(z, level, batch.conditioning)
        # Up to float32 rounding of the angle.
        is_covered = expand_like(angle <= self.max_angle + 1e-6, z)
        return torch.where(is_covered, x, batch.data) + guidance

    def weight(self, angle: torch.Tensor) -> torch.Tensor:
        weight = super().weight(angle)
        if self.teacher.prediction_type != "epsilon":
            return weight
        # An epsilon teacher errs as much in epsilon at every noise level: its x is trusted with SNR, but for a little
        # weight that keeps the noisiest end trained.
        kind = self.student.prediction_type
        least = NOISY_END_WEIGHT * loss_weight(angle, "snr_plus_one", kind)
        return torch.minimum(weight, torch.maximum(loss_weight(angle, "snr", kind), least))
