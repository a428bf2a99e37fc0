"""Algorithm 1: a network learns to denoise. The target is the data, at noise levels all along the process."""

import torch

from ..processes.base import add_noise, expand_like
from ..processes.prediction import from_sample, merge_heads
from ..processes.weighting import loss_weight, weighted_loss
from .base import Batch, Examples, Objective


class DenoisingObjective(Objective):
    """w(SNR) ||x - x(z)||^2 at u uniform in (0, 1], formed in the network's own output space."""

    @torch.no_grad()
    def make_examples(self, batch: Batch, update: int = 0) -> Examples:
        level = self.student.process.levels(1 - batch.uniform)
        z = add_noise(batch.data, batch.noise, expand_like(level.angle, batch.data))
        target = self.make_target(z, level.angle, batch)
        never = torch.zeros_like(level.angle, dtype=torch.bool)
        return Examples(z, level.angle, level.time, target, never, batch.conditioning)

    def make_target(self, z: torch.Tensor, angle: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The x that the network is to predict."""
        return batch.data

    def compute_losses(self, network: torch.nn.Module, examples: Examples) -> dict[str, torch.Tensor]:
        z, kind = examples.z, self.student.prediction_type
        output = self.student.predict(z, examples.level, examples.conditioning, network)
        angle = expand_like(examples.angle, z)
        alpha, sigma = torch.cos(angle), torch.sin(angle)
        error = merge_heads(output, z, alpha, sigma, kind) - from_sample(examples.target, z, alpha, sigma, kind)
        return {"loss": weighted_loss(error, self.weight(examples.angle))}

    def weight(self, angle: torch.Tensor) -> torch.Tensor:
        """The factor of the squared error of the network's own output."""
        return loss_weight(angle, self.weighting, self.student.prediction_type)
