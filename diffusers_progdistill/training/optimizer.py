"""The optimizer of a stage and its step: skipped on the device where an update is not finite."""

import torch
from torch.distributed.tensor import DTensor

from .config import TrainingConfig


class GuardedAdamW(torch.optim.AdamW):
    """
    Fused AdamW that leaves weights and moments as they are where it is told to, without the host knowing. It is what
    [`~torch.amp.GradScaler`] does to fused optimizers, for updates that have no loss scale.
    """

    def guard(self, skip: torch.Tensor):
        """The next steps do nothing if `skip` is 1.0, and are made if it is 0.0."""
        self.found_inf = skip


def make_optimizer(config: TrainingConfig, model: torch.nn.Module) -> GuardedAdamW:
    """A fresh AdamW; the fused one reads nothing back from the device."""
    return GuardedAdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.adam_weight_decay,
        eps=config.adam_epsilon,
        fused=True,
    )


def clip_gradient(accelerator, parameters: list[torch.nn.Parameter], max_norm: float) -> torch.Tensor:
    """
    Clip the gradient's norm.

    Args:
        accelerator ([`~accelerate.Accelerator`]): What has prepared the model.
        parameters (`list[torch.nn.Parameter]`): Those of the prepared model.
        max_norm (`float`): The largest norm.

    Returns:
        `torch.Tensor`: The norm before, a scalar on the device, whatever accelerate made of it; 0 if it has none.
    """
    norm = accelerator.clip_grad_norm_(parameters, max_norm)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if not isinstance(norm, torch.Tensor):
        return torch.full((), float(norm or 0), device=accelerator.device)
    return norm.detach()


def step(accelerator, optimizer, skip: torch.Tensor):
    """Make the update of a prepared [`GuardedAdamW`], or skip it; fp16's scaler judges for itself."""
    if accelerator.scaler is None:
        optimizer.optimizer.guard(skip)
    optimizer.step()
    optimizer.zero_grad()
