"""One stage, from the first update to the last."""

import time
from dataclasses import dataclass

import torch
from diffusers.optimization import get_scheduler

from ..data import ImageData
from ..pipelines.networks import needs_labels
from ..seeds import derive_seed
from .average import WeightAverage
from .checkpointing import Checkpoints
from .config import TrainingConfig
from .feed import Feed
from .health import Health
from .loss_scale import read_scale
from .optimizer import GuardedStep, clip_gradient, make_optimizer
from .sharding import gathered, prepare
from .signals import StopCheck, StopRequest
from .stages import Draws, Objective, Stage


@dataclass
class StageResult:
    """
    What a stage took and made: updates, their seconds, the mean loss of its last logging interval, updates skipped,
    the network that was trained, and fp16's loss scale.
    """

    updates: int
    seconds: float
    loss: float | None
    skipped: int
    network: torch.nn.Module
    loss_scale: dict | None = None


def learning_rate_factor(config: TrainingConfig, optimizer, updates: int):
    """diffusers' rate schedules as a pure function of the update: nothing to save, nothing to step twice."""
    schedule = get_scheduler(
        config.lr_scheduler, optimizer, num_warmup_steps=config.lr_warmup_steps, num_training_steps=updates
    )
    return schedule.lr_lambdas[0]


def has_dropout(model: torch.nn.Module) -> bool:
    """Whether a training forward pass draws random numbers of its own."""
    return any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())


def train_stage(
    accelerator,
    model: torch.nn.Module,
    objective: Objective,
    data: ImageData,
    stage: Stage,
    config: TrainingConfig,
    monitor,
    ema_decay: float | None = None,
    checkpoints: Checkpoints | None = None,
    stop: StopRequest | None = None,
) -> StageResult:
    """
    Train `model` in place, from the newest checkpoint if there is one. With `ema_decay` it ends as the average of its
    weights. Where its parameters are sharded, the result's network is another one, with the whole weights.

    Args:
        accelerator ([`~accelerate.Accelerator`]): Precision, processes and accumulation.
        model ([`UNet2DModel`]): The network, on the accelerator's device.
        objective ([`Objective`]): The loss of a batch.
        data ([`ImageData`]): The images.
        stage ([`Stage`]): Its number of updates, and the number that enters the seeds.
        config ([`TrainingConfig`]): Optimizer and batch options.
        monitor ([`~training.monitor.Monitor`]): Is told of every update, and of the loss on logging updates.
        ema_decay (`float`, *optional*): Decay of an average of the weights; it warms up as in diffusers' EMAModel.
        checkpoints ([`Checkpoints`], *optional*): Where checkpoints are read and written.
        stop ([`StopRequest`], *optional*): When it is requested, a checkpoint is written and the stage is left.

    Raises:
        `FloatingPointError`: If too many updates had to be skipped, see [`Health`].
        [`StoppedBySignal`]: After the checkpoint that `stop` asked for.
    """
    parts, world, rank = accelerator.gradient_accumulation_steps, accelerator.num_processes, accelerator.process_index
    global_batch = config.train_batch_size * parts * world
    label_dropout, null_label = config.label_dropout, data.num_classes
    draws = Draws(
        config.seed, stage.number, global_batch, accelerator.device, config.random_flip, label_dropout, null_label
    )

    model.train()
    dropout, conditional = has_dropout(model), needs_labels(model)
    adam = make_optimizer(config, model)
    rate = learning_rate_factor(config, adam, stage.updates)
    model_class = type(model)
    health = Health(accelerator, stage.updates)
    wrapped, optimizer, parameters = prepare(accelerator, model, adam)
    guard = GuardedStep(accelerator, [optimizer])
    ema = None if ema_decay is None else WeightAverage(parameters, decay=ema_decay)
    saved, first, seconds_before, mean_loss = None, 0, 0.0, None
    if checkpoints is not None:
        checkpoints.attach({"model": wrapped}, {"model": optimizer}, {} if ema is None else {"model": ema})
        saved = checkpoints.load()
    if saved is not None:
        first, seconds_before, mean_loss = saved["update"], saved["seconds"], saved["mean_loss"]
        health.restore(saved["health"])
    feed = Feed(accelerator, objective, data, draws, config, stage, first, conditional)
    # `accumulate` counts the parts of an update from here on; a stage that was left early may have been amid them.
    accelerator.step = 0
    stop_check = StopCheck(accelerator, stop, config.logging_steps, first)
    monitor.resume(first)
    began = time.perf_counter()

    done = first
    while done < stage.updates:
        update, done = done, done + 1
        learning_rate = config.learning_rate * rate(update)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        loss_of_update = 0.0
        for part, examples in enumerate(feed.of_update(update)):
            if dropout:
                torch.manual_seed(derive_seed(config.seed, stage.number, update, part, rank))
            # Gradients of the parts add up in each process; processes meet once an update.
            with accelerator.accumulate(wrapped):
                with accelerator.autocast():
                    loss = objective.loss(wrapped, examples)
                accelerator.backward(loss)
            loss_of_update += loss.detach() / parts
        grad_norm = clip_gradient(accelerator, parameters, config.max_grad_norm)
        guard.step(health.judge({"loss": loss_of_update}, [grad_norm]))
        if ema is not None:
            ema.step(parameters)
        monitor.on_update()

        if done % config.logging_steps == 0 or done == stage.updates:
            means, skipped = health.read(stage.name, done)
            mean_loss = means["loss"]
            monitor.on_log(stage, done, mean_loss, learning_rate, skipped)
        to_stop = stop_check.must_stop(done)
        if checkpoints is not None and done < stage.updates and (to_stop or done % config.checkpointing_steps == 0):
            seconds = seconds_before + time.perf_counter() - began
            state = {"seconds": seconds, "mean_loss": mean_loss, "health": health.values()}
            checkpoints.save(done, state)
        if to_stop and done < stage.updates:
            stop.stop()

    if ema is not None:
        ema.copy_to(parameters)
    network = accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    network = gathered(network, model_class).eval() if accelerator.is_fsdp2 else network.eval()
    accelerator.free_memory()
    seconds = seconds_before + time.perf_counter() - began
    return StageResult(done, seconds, mean_loss, skipped, network, read_scale(accelerator))
