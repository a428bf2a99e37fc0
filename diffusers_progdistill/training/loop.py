"""One stage, from the first update to the last."""

import contextlib
import time
from dataclasses import dataclass

import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from ..data import GlobalOrder, ImageData, make_loader
from .config import TrainingConfig
from .stages import Draws, Objective, Stage


@dataclass
class StageResult:
    """What a stage took: seconds of its updates, and the mean loss of its last logging interval."""

    seconds: float
    loss: float


def learning_rate_factor(config: TrainingConfig, optimizer, updates: int):
    """diffusers' rate schedules as a pure function of the update: nothing to save, nothing to step twice."""
    schedule = get_scheduler(
        config.lr_scheduler, optimizer, num_warmup_steps=config.lr_warmup_steps, num_training_steps=updates
    )
    return schedule.lr_lambdas[0]


def make_optimizer(config: TrainingConfig, model) -> torch.optim.AdamW:
    """A fresh AdamW; the fused one reads nothing back from the device."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.adam_weight_decay,
        eps=config.adam_epsilon,
        fused=True,
    )


def train_stage(
    accelerator,
    model: torch.nn.Module,
    objective: Objective,
    data: ImageData,
    stage: Stage,
    config: TrainingConfig,
    monitor,
    ema_decay: float | None = None,
) -> StageResult:
    """
    Train `model` in place. With `ema_decay` it ends as the average of its weights.

    Args:
        accelerator ([`~accelerate.Accelerator`]): Precision, processes and accumulation.
        model ([`UNet2DModel`]): The network, on the accelerator's device.
        objective ([`Objective`]): The loss of a batch.
        data ([`ImageData`]): The images.
        stage ([`Stage`]): Its number of updates, and the number that enters the seeds.
        config ([`TrainingConfig`]): Optimizer and batch options.
        monitor ([`~training.monitor.Monitor`]): Is told of every update, and of the loss on logging updates.
        ema_decay (`float`, *optional*): Decay of an average of the weights; it warms up as in diffusers' EMAModel.

    Raises:
        `FloatingPointError`: If the loss is found not to be finite on a logging update.
    """
    parts, world = config.gradient_accumulation_steps, accelerator.num_processes
    part_size = config.train_batch_size
    global_batch = part_size * parts * world
    order = GlobalOrder(
        len(data), global_batch, parts, accelerator.process_index, world, config.seed, stage.number, stage.updates
    )
    batches = iter(make_loader(data, order, config.dataloader_num_workers))
    draws = Draws(config.seed, stage.number, global_batch, accelerator.device, config.random_flip)
    image_shape = (data.channels, data.resolution, data.resolution)

    model.train()
    optimizer = make_optimizer(config, model)
    rate = learning_rate_factor(config, optimizer, stage.updates)
    ema = None if ema_decay is None else EMAModel(model.parameters(), decay=ema_decay, foreach=True)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    loss_sum = torch.zeros((), device=accelerator.device)
    last_log = 0
    began = time.perf_counter()

    for update in range(stage.updates):
        learning_rate = config.learning_rate * rate(update)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        drawn = draws.of_update(update, image_shape)
        for part in range(parts):
            images, labels = next(batches)
            labels = labels if model.config.num_class_embeds is not None else None
            batch = draws.part(drawn, images, labels, (part * world + accelerator.process_index) * part_size)
            last_part = part == parts - 1
            # Gradients of the parts add up in each process; processes meet once an update.
            with contextlib.nullcontext() if last_part else accelerator.no_sync(wrapped):
                with accelerator.autocast():
                    loss = objective(wrapped, batch)
                accelerator.backward(loss)
            loss_sum += loss.detach() / parts
        accelerator.clip_grad_norm_(wrapped.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        if ema is not None:
            ema.step(model.parameters())
        monitor.on_update()

        done = update + 1
        if done % config.logging_steps == 0 or done == stage.updates:
            mean_loss = (accelerator.reduce(loss_sum, "mean") / (done - last_log)).item()
            loss_sum.zero_()
            last_log = done
            if not mean_loss < float("inf"):
                raise FloatingPointError(
                    f"the loss of stage {stage.name} is {mean_loss} at update {done}; try a lower --learning_rate."
                    " Finished students are kept"
                )
            monitor.on_log(stage, done, mean_loss, learning_rate)

    if ema is not None:
        ema.copy_to(model.parameters())
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False).eval()
    accelerator.free_memory()
    return StageResult(time.perf_counter() - began, mean_loss)
