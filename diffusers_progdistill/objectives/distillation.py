"""Algorithm 2: one step of the student leads where several steps of the teacher lead."""

from dataclasses import dataclass
from typing import Any

import torch

from ..denoisers.base import Denoiser
from ..processes.base import add_noise, expand_like
from ..processes.clipping import hidden_error
from ..processes.prediction import from_sample, merge_heads, output_slope, to_sample
from ..processes.targets import TargetGrid, teacher_target
from ..processes.weighting import loss_weight, pseudo_huber_loss, weighted_loss
from .base import Batch, Examples, TeacherObjective
from .stage import Stage


@dataclass(frozen=True)
class DistillationLoss:
    """
    What an error of a student costs.

    Attributes:
        weighting (`str`): One of `WEIGHTINGS`.
        huber_c (`float`, *optional*): Threshold of the pseudo-Huber loss; without it the loss is the square.
        clip_margin (`float`, *optional*): Judge the last step by the finished image, see [`hidden_error`]; without it
            all steps are judged by x.
    """

    weighting: str
    huber_c: float | None = None
    clip_margin: float | None = None


class DistillationObjective(TeacherObjective):
    """
    The target is where the teacher's steps lead, at u = i/N with i uniform in 1 ... N.

    Args:
        student, teacher ([`Denoiser`]): On one process.
        grid ([`TargetGrid`]): Of the student's steps and the teacher's steps in them.
        loss ([`DistillationLoss`]): What an error costs.
    """

    def __init__(self, student: Denoiser, teacher: Denoiser, grid: TargetGrid, loss: DistillationLoss) -> None:
        super().__init__(student, loss.weighting)
        self.teacher, self.grid, self.loss = teacher, grid, loss
        self.num_steps = len(grid.angles)

    @classmethod
    def build(cls, student: Denoiser, teacher: Denoiser, stage: Stage, config: Any) -> "DistillationObjective":
        if config.stochastic_sampler:
            # Its student spans two steps of a teacher on its own grid.
            grid = TargetGrid.create_doubled(student.process, stage.student_steps)
        else:
            grid = TargetGrid.create(student.process, stage.student_steps, stage.factor, stage.midpoint)
        huber_c = config.huber_c if config.loss_type == "huber" else None
        loss = DistillationLoss(config.weighting, huber_c, config.clip_margin if config.clip_loss else None)
        return cls(student, teacher, grid.to(next(student.network.parameters()).device), loss)

    @staticmethod
    def count_example_passes(factor: int, evaluations: int) -> int:
        return factor * evaluations

    @torch.no_grad()
    def make_examples(self, batch: Batch, update: int = 0) -> Examples:
        index = (batch.uniform * self.num_steps).long()
        rows = self.grid.at(index)
        z = add_noise(batch.data, batch.noise, expand_like(rows.angles[:, 0], batch.data))
        if not self.student.process.ends_in_noise:
            # A stock pipeline starts from pure noise, a little noisier than the process ends: so does the student.
            z = torch.where(expand_like(index == self.num_steps - 1, z), batch.noise, z)
        target = teacher_target(
            lambda sample, level: self.teacher.predict_x0(sample, level, batch.conditioning), z, rows
        )
        return Examples(z, *rows.level(0), target, index == 0, batch.conditioning)

    def compute_losses(self, network: torch.nn.Module, examples: Examples) -> dict[str, torch.Tensor]:
        z, target, kind = examples.z, examples.target, self.student.prediction_type
        output = self.student.predict(z, examples.level, examples.conditioning, network)
        angle = expand_like(examples.angle, z)
        alpha, sigma = torch.cos(angle), torch.sin(angle)
        output = merge_heads(output, z, alpha, sigma, kind)
        error = output - from_sample(target, z, alpha, sigma, kind)
        if self.loss.clip_margin is not None:
            x = output if kind == "sample_epsilon" else to_sample(output, z, alpha, sigma, kind)
            hidden = hidden_error(x, target, self.loss.clip_margin) * output_slope(alpha, sigma, kind)
            error = error - torch.where(expand_like(examples.is_last, z), hidden, 0.0)
        weight = loss_weight(examples.angle, self.weighting, kind)
        if self.loss.huber_c is None:
            return {"loss": weighted_loss(error, weight)}
        return {"loss": pseudo_huber_loss(error, weight, self.loss.huber_c)}
