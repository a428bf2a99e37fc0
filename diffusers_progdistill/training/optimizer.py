"""
The optimizers of a stage and their step, which is skipped on the device where an update is not finite; the average of
the weights; and fp16's loss scale: kept from stage to stage, and its search told from divergence.
"""

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from .config import TrainingConfig
from .sharding import take_local, take_whole


# A scale as small as this hides no overflow of its own: a gradient that is not finite here is not finite at all.
LEAST_SCALE = 1.0


def make_optimizer(config: TrainingConfig, model: torch.nn.Module) -> torch.optim.AdamW:
    """A fresh AdamW; the fused one reads nothing back from the device."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.adam_weight_decay,
        eps=config.adam_epsilon,
        fused=True,
    )


def clip_gradient(accelerator: Accelerator, parameters: list[torch.nn.Parameter], max_norm: float) -> torch.Tensor:
    """Clip the gradient's norm; the norm before, a scalar on the device, whatever accelerate made of it."""
    norm = accelerator.clip_grad_norm_(parameters, max_norm)
    if not isinstance(norm, torch.Tensor):
        return torch.full((), float(norm or 0), device=accelerator.device)
    return take_whole(norm).detach()


class GuardedStep:
    """
    The step of all optimizers, or of none: weights and moments stay as they are, without the host knowing. torch's
    gradient scaler does it for fused optimizers (and with a look at the device for others): accelerate's in fp16, and
    where no loss is scaled one whose scale stays 1.
    """

    def __init__(self, accelerator: Accelerator, optimizers: list[torch.optim.Optimizer]) -> None:
        # accelerate's optimizers would each update the scale, which torch wants once, after all of them.
        self.optimizers = [getattr(optimizer, "optimizer", optimizer) for optimizer in optimizers]
        self.is_scaled = accelerator.scaler is not None
        self.scaler = accelerator.scaler or torch.amp.GradScaler(accelerator.device.type, init_scale=1.0)
        # A scaler has no scale before its first loss.
        self.scaler.scale(torch.ones((), device=accelerator.device))

    def step(self, skip: torch.Tensor) -> None:
        """Make the update if `skip` is 0.0, leave it if it is 1.0; in fp16 the scaler judges each gradient itself."""
        for optimizer in self.optimizers:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if not gradients:
                continue
            if not self.is_scaled:
                # The scaler looks at gradients alone; what else is not finite is told to it by one of them.
                take_local(gradients[0]).add_(torch.where(skip > 0, torch.nan, 0.0))
                self.scaler.unscale_(optimizer)
            self.scaler.step(optimizer)
            optimizer.zero_grad()
        self.scaler.update(None if self.is_scaled else 1.0)


class WeightAverage(EMAModel):
    """
    diffusers' average with its warm-up. Its own two operations round otherwise than this one, while it warms up; like
    them it is one of torch's operations on lists. Of sharded parameters each process averages what it holds.
    """

    @torch.no_grad()
    def step(self, parameters: list[torch.nn.Parameter]) -> None:
        self.optimization_step += 1
        self.cur_decay_value = self.get_decay(self.optimization_step)
        averages, current = ([take_local(tensor) for tensor in some] for some in (self.shadow_params, parameters))
        torch._foreach_lerp_(averages, current, 1 - self.cur_decay_value)


def read_scale(accelerator: Accelerator) -> dict | None:
    """The state of the loss scaler as JSON values; `None` without one."""
    return None if accelerator.scaler is None else accelerator.scaler.state_dict()


def restore_scale(accelerator: Accelerator, state: dict | None) -> None:
    """Go on with a scale that [`read_scale`] gave."""
    if accelerator.scaler is not None and state:
        accelerator.scaler.load_state_dict(state)


def is_searching(scaler: torch.amp.GradScaler, device: torch.device) -> torch.Tensor:
    """Whether an overflow may be the scale's fault: 1.0 while the scale can still fall, else 0.0, on the device."""
    # `get_scale` would wait for the device; this gives the same number there.
    return (scaler.scale(torch.ones((), device=device)) > LEAST_SCALE).float()
