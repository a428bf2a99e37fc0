"""One stage, from the first update to the last."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.optimization import get_scheduler

from ..errors import InputError
from ..seeds import derive_seed
from .checkpointing import Checkpoints
from .config import TrainingConfig
from .examples import ExampleStream
from .health import Health
from .monitor import Monitor
from .optimizer import GuardedStep, WeightAverage, clip_gradient, make_optimizer, read_scale
from .run import Run
from .sharding import gather_network, prepare
from .signals import StopCheck, StopRequest
from .task import StageTask


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


class StageTrainer:
    """
    Trains the network of a task, from the newest checkpoint if there is one.

    Args:
        run ([`Run`]): Options, processes and images.
        task ([`StageTask`]): What is trained. Its student's network is trained in place; where parameters are sharded,
            the result's network is another one, with the whole weights.
        monitor ([`Monitor`]): Is told of every update, and of the loss on logging updates.
        checkpoints ([`Checkpoints`], *optional*): Where checkpoints are read and written.
        stop ([`StopRequest`], *optional*): When it is requested, a checkpoint is written and the stage is left.
    """

    def __init__(
        self,
        run: Run,
        task: StageTask,
        monitor: Monitor,
        checkpoints: Checkpoints | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        self.run, self.accelerator, self.config = run, run.accelerator, run.config
        self.stage, self.objective = task.stage, task.objective
        self.monitor, self.checkpoints, self.stop = monitor, checkpoints, stop
        network = task.objective.student.network.train()
        self.network_class, self.has_dropout = type(network), has_dropout(network)
        adam = make_optimizer(self.config, network)
        self.rate = make_learning_rate(self.config, adam, self.stage.updates)
        self.health = Health(self.accelerator, self.stage.updates, self.objective.loss_names)
        self.network, self.optimizer, self.parameters = prepare(self.accelerator, network, adam)
        self.prepare_objective()
        self.guard = GuardedStep(self.accelerator, [self.optimizer, *self.objective.optimizers.values()])
        self.ema = None if task.ema_decay is None else WeightAverage(self.parameters, decay=task.ema_decay)
        self.first, self.seconds_before, self.mean_loss, self.skipped = 0, 0.0, None, 0
        if checkpoints is not None:
            self.attach_to(checkpoints)
            self.restore(checkpoints.load())
        self.began = time.perf_counter()

    def prepare_objective(self) -> None:
        """What an objective has of its own is brought to the device, and shared as the student is if it is trained."""
        networks, optimizers = self.objective.networks, self.objective.optimizers
        if networks and self.accelerator.is_fsdp2:
            raise InputError("FSDP 2 spreads the student alone, and --objective has a second network: use MULTI_GPU")
        for name, network in networks.items():
            networks[name] = network.to(self.accelerator.device)
            if name in optimizers:
                networks[name], optimizers[name] = self.accelerator.prepare(network, optimizers[name])

    def train(self) -> StageResult:
        """
        Make the updates that are left.

        Raises:
            `FloatingPointError`: If too many updates had to be skipped, see [`Health`].
            [`StoppedBySignal`]: After the checkpoint that `stop` asked for.
        """
        stream = ExampleStream(self.run, self.objective, self.stage, self.first)
        # `accumulate` counts the micro-batches of an update from here on; a stage that was left early may have been
        # amid them.
        self.accelerator.step = 0
        stop_check = StopCheck(self.accelerator, self.stop, self.config.logging_steps, self.first)
        self.monitor.resume(self.first)
        for update in range(self.first, self.stage.updates):
            done = update + 1
            learning_rate = self.set_learning_rate(update)
            losses = self.accumulate_gradient(update, stream)
            grad_norm = clip_gradient(self.accelerator, self.parameters, self.config.max_grad_norm)
            self.guard.step(self.health.judge(losses, [grad_norm]))
            self.objective.after_update(done)
            if self.ema is not None:
                self.ema.step(self.parameters)
            self.monitor.on_update()
            if done % self.config.logging_steps == 0 or done == self.stage.updates:
                means, self.skipped = self.health.read(self.stage.name, done)
                self.mean_loss = None if None in means.values() else sum(means.values())
                self.monitor.on_log(self.stage, done, self.mean_loss, learning_rate, self.skipped)
            self.save_or_stop(done, stop_check.must_stop(done))
        return self.finish()

    def set_learning_rate(self, update: int) -> float:
        """The learning rate of an update."""
        learning_rate = self.config.learning_rate * self.rate(update)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        return learning_rate

    def accumulate_gradient(self, update: int, stream: ExampleStream) -> dict[str, torch.Tensor]:
        """The gradient of an update's micro-batches; returns the means of their losses."""
        micro_batches, rank = self.accelerator.gradient_accumulation_steps, self.accelerator.process_index
        means = dict.fromkeys(self.objective.loss_names, 0.0)
        for number, examples in enumerate(stream.read_update(update)):
            if self.has_dropout:
                torch.manual_seed(derive_seed(self.config.seed, self.stage.seed, update, number, rank))
            # Gradients of micro-batches add up in each process; processes meet once an update.
            with self.accelerator.accumulate(self.network):
                with self.accelerator.autocast():
                    losses = self.objective.compute_losses(self.network, examples)
                self.accelerator.backward(sum(losses.values()))
            means = {name: mean + losses[name].detach() / micro_batches for name, mean in means.items()}
        return means

    def save_or_stop(self, done: int, to_stop: bool) -> None:
        """Write the checkpoint that is due after `done` updates, and leave the stage if that was asked for."""
        if done == self.stage.updates:
            return
        if self.checkpoints is not None and (to_stop or done % self.config.checkpointing_steps == 0):
            state = {"seconds": self.seconds, "mean_loss": self.mean_loss, "health": self.health.values()}
            self.checkpoints.save(done, state)
        if to_stop:
            self.stop.stop()

    def attach_to(self, checkpoints: Checkpoints) -> None:
        """Name all that a checkpoint holds."""
        own = self.objective
        averages = ({} if self.ema is None else {"model": self.ema}) | own.averages
        checkpoints.attach(
            {"model": self.network, **own.networks}, {"model": self.optimizer, **own.optimizers}, averages
        )

    def restore(self, saved: dict | None) -> None:
        """Go on from a checkpoint's state."""
        if saved is not None:
            self.first, self.seconds_before, self.mean_loss = saved["update"], saved["seconds"], saved["mean_loss"]
            self.health.restore(saved["health"])

    @property
    def seconds(self) -> float:
        """Seconds of training, those before a resume among them."""
        return self.seconds_before + time.perf_counter() - self.began

    def finish(self) -> StageResult:
        """The trained network, whole and unwrapped."""
        if self.ema is not None:
            self.ema.copy_to(self.parameters)
        network = self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        network = gather_network(network, self.network_class) if self.accelerator.is_fsdp2 else network
        scale = read_scale(self.accelerator)
        self.accelerator.free_memory()
        return StageResult(self.stage.updates, self.seconds, self.mean_loss, self.skipped, network.eval(), scale)


def make_learning_rate(
    config: TrainingConfig, optimizer: torch.optim.Optimizer, updates: int
) -> Callable[[int], float]:
    """diffusers' rate schedules as a pure function of the update: nothing to save, nothing to step twice."""
    schedule = get_scheduler(
        config.lr_scheduler, optimizer, num_warmup_steps=config.lr_warmup_steps, num_training_steps=updates
    )
    return schedule.lr_lambdas[0]


def has_dropout(model: torch.nn.Module) -> bool:
    """Whether a training forward pass draws random numbers of its own."""
    return any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())
