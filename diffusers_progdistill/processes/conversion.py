"""The target of the conversion stage: a teacher on any variance preserving schedule, asked for x on ours.

Two variance preserving schedules differ only in when they reach a log-SNR. At the same log-SNR alpha and sigma are the
same, and so is the noisy image z: the teacher is given it as it is, at the (fractional) timestep where its own
schedule has that log-SNR.
"""

from dataclasses import dataclass

import torch

from .betas import NoiseSchedule
from .prediction import to_sample


# Below this log-SNR the x of an epsilon teacher is its error divided by a small alpha, and the data teach better
# (docs/convert.md has what was compared).
EPSILON_LOG_SNR_MIN = -6.0


@dataclass
class ConversionTeacher:
    """
    A teacher as the conversion stage sees it: a function from (z, phi) to x.

    Args:
        network (`Callable`): `network(z, timestep, class_labels)` -> the network's output.
        schedule ([`NoiseSchedule`]): The teacher's own.
        prediction_type (`str`): The teacher's own.
        guidance_scale (`float`, defaults to 1.0): g of x = g x_cond - (g - 1) x_uncond; 1 is no guidance. It is
            Meng et al. (2022)'s w + 1.
        null_label (`int`, *optional*): The label that stands for no class.
        angle_max (`float`, *optional*): Noisier than this the teacher is not the target. Default: the max_angle angle
            it was trained at, or less for epsilon, whose x is too noisy there.
    """

    network: object
    schedule: NoiseSchedule
    prediction_type: str
    guidance_scale: float = 1.0
    null_label: int | None = None
    angle_max: float | None = None

    def __post_init__(self):
        if self.angle_max is None:
            self.angle_max = self.schedule.max_angle
            if self.prediction_type == "epsilon":
                limit = torch.atan(torch.exp(torch.tensor(-EPSILON_LOG_SNR_MIN / 2, dtype=torch.float64)))
                self.angle_max = min(self.angle_max, limit.item())

    def knows(self, angle: torch.Tensor) -> torch.Tensor:
        """Where the teacher is the target, up to float32 rounding of the angle."""
        return angle <= self.angle_max + 1e-6

    def predict(self, z: torch.Tensor, angle: torch.Tensor, labels: torch.Tensor | None):
        """
        The teacher's x, not clipped, at angles it was trained at (others count as the nearest such).

        Args:
            z (`torch.Tensor` of shape `(batch_size, channels, height, width)`): Noisy images.
            angle (`torch.Tensor` of shape `(batch_size,)`): phi in radians.
            labels (`torch.Tensor` of shape `(batch_size,)`, *optional*): Classes.

        Returns:
            `tuple[torch.Tensor, torch.Tensor | float]`: x with the class, and what guidance adds to it,
            (g - 1)(x_cond - x_uncond).
        """
        # Noisier: the teacher is asked at its max_angle, with the alpha and sigma of that. Cleaner: at its first
        # timestep, with the alpha and sigma of z.
        angle = angle.clamp(max=self.angle_max)
        timestep = self.schedule.timesteps(angle)
        alpha, sigma = torch.cos(angle)[:, None, None, None], torch.sin(angle)[:, None, None, None]
        if self.guidance_scale == 1:
            output = self.network(z, timestep, labels).to(z.dtype)
            return to_sample(output, z, alpha, sigma, self.prediction_type), 0.0
        both = torch.cat([labels, torch.full_like(labels, self.null_label)])
        output = self.network(z.repeat(2, 1, 1, 1), timestep.repeat(2), both).to(z.dtype)
        conditional, unconditional = (
            to_sample(part, z, alpha, sigma, self.prediction_type) for part in output.chunk(2)
        )
        return conditional, (self.guidance_scale - 1) * (conditional - unconditional)

    def target(self, z: torch.Tensor, angle: torch.Tensor, labels: torch.Tensor | None, data: torch.Tensor):
        """
        What the student is to predict: the teacher's x, and where the teacher says nothing reliable (noisier than
        `angle_max`) the data, as in Algorithm 1, with what guidance adds.

        Args:
            z, angle, labels: As in [`~ConversionTeacher.predict`].
            data (`torch.Tensor`): The images that z was made of.
        """
        x, guidance = self.predict(z, angle, labels)
        return torch.where(self.knows(angle)[:, None, None, None], x, data) + guidance
