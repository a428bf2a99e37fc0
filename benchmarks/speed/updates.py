"""Our update, as `distill` makes it, and the floor: four network calls, gradient clipping, the fused optimizer."""

import copy
import time

import torch
from accelerate import Accelerator
from networks import make_images, make_network

from diffusers_progdistill import ProgressiveDistillationScheduler
from diffusers_progdistill.denoisers.base import Denoiser
from diffusers_progdistill.objectives.base import Batch
from diffusers_progdistill.objectives.distillation import DistillationLoss, DistillationObjective
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.processes.betas import ANGLE_MIN, ANGLE_RANGE
from diffusers_progdistill.processes.targets import TargetGrid
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.loop import StageTrainer
from diffusers_progdistill.training.monitor import Monitor
from diffusers_progdistill.training.optimizer import make_optimizer
from diffusers_progdistill.training.run import Run
from diffusers_progdistill.training.task import StageTask


NUM_STEPS, TIMESTEPS = 8, 1024


def make_config(batch_size: int, **options) -> DistillationConfig:
    """The options of an update: `distill`'s defaults."""
    return DistillationConfig(dataset_name="digits", report_to="none", train_batch_size=batch_size, **options)


def make_objective(student, teacher, device="cpu", loss_type: str = "huber") -> DistillationObjective:
    """The loss with both of its parts, which costs the most, or the squared one, the only one that peers know."""
    own = (DistillationConfig.huber_c, DistillationConfig.clip_margin) if loss_type == "huber" else ()
    process = ProgressiveDistillationScheduler(num_train_timesteps=TIMESTEPS).schedule
    student, teacher = (Denoiser(network, process, "v_prediction") for network in (student, teacher))
    grid = TargetGrid.create(process, NUM_STEPS).to(device)
    return DistillationObjective(student, teacher, grid, DistillationLoss("truncated_snr", *own))


def make_task(objective: DistillationObjective, updates: int, ema_decay: float | None = None) -> StageTask:
    """A stage of so many updates."""
    stage = Stage("speed", updates, 5, NUM_STEPS)
    return StageTask(stage, objective, ProgressiveDistillationScheduler(), ema_decay)


class Floor:
    """What no distillation update can do without."""

    def __init__(self, network: str, batch_size: int):
        self.teacher = make_network(network).eval().requires_grad_(False)
        self.student = make_network(network).train()
        self.optimizer = make_optimizer(make_config(batch_size), self.student)
        size = self.student.config.sample_size
        self.z = torch.randn(batch_size, 1, size, size)
        self.timestep, self.target = torch.rand(batch_size) * 1000, torch.randn_like(self.z)

    def __call__(self):
        with torch.no_grad():
            self.teacher(self.z, self.timestep, return_dict=False)
            self.teacher(self.z, self.timestep, return_dict=False)
        output = self.student(self.z, self.timestep, return_dict=False)[0]
        (output - self.target).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Interleaving(Monitor):
    """Lets the other sides have their turn between two updates of the real loop."""

    def __init__(self, accelerator, forward_passes: int, sides: dict, warm_up: int):
        super().__init__(accelerator, None, forward_passes)
        self.sides, self.warm_up, self.updates = sides, warm_up, 0
        self.times = {name: [] for name in ("ours", *sides)}

    def resume(self, first_update: int):
        super().resume(first_update)
        self.turn = time.perf_counter()

    def on_update(self):
        super().on_update()
        self._note("ours")
        for name, side in self.sides.items():
            self.turn = time.perf_counter()
            side()
            self._note(name)
        self.updates += 1
        self.turn = time.perf_counter()

    def _note(self, name: str):
        if self.updates >= self.warm_up:
            self.times[name].append(time.perf_counter() - self.turn)


def against(
    network: str, batch_size: int, sides: dict, repeats: int, warm_up: int = 5, ema=False, loss_type="huber"
) -> dict:
    """Seconds of our update and of each of the others, in turns."""
    config = make_config(batch_size, logging_steps=50, use_ema=ema)
    accelerator = Accelerator(cpu=True)
    teacher = make_network(network).eval().requires_grad_(False)
    objective = make_objective(make_network(network), teacher, loss_type=loss_type)
    task = make_task(objective, warm_up + repeats, config.ema_decay if ema else None)
    monitor = Interleaving(accelerator, task.stage.forward_passes, sides, warm_up)
    monitor.start(task.stage, 1, 1, batch_size)
    StageTrainer(Run(config, accelerator, make_images(network), batch_size), task, monitor).train()
    return monitor.times


def check(network: str, batch_size: int = NUM_STEPS) -> float:
    """Largest difference of our targets from the paper's formulas in float64; it must be rounding."""
    teacher = make_network(network).eval().requires_grad_(False)
    size = teacher.config.sample_size
    generator = torch.Generator().manual_seed(0)
    images, noise = (torch.randn(batch_size, 1, size, size, generator=generator) for _ in range(2))
    uniform = (torch.arange(batch_size) % NUM_STEPS + 0.5) / NUM_STEPS
    examples = make_objective(teacher, teacher).make_examples(Batch(images, {}, uniform, noise))
    exact, z = copy.deepcopy(teacher).double(), examples.z.double()
    index = (uniform * NUM_STEPS).long() + 1
    angles = [(ANGLE_MIN + ANGLE_RANGE * (index - part / 2) / NUM_STEPS).double() for part in range(3)]
    # The step of i = 1 ends in clean data.
    angles[2] = torch.where(index == 1, 0.0, angles[2])
    times = [TIMESTEPS * (index - part / 2).double() / NUM_STEPS - 1 for part in range(2)]
    begin, landed = z, z
    angles = [angle[:, None, None, None] for angle in angles]
    with torch.no_grad():
        for angle, end, timestep in zip(angles, angles[1:], times):
            v = exact(landed.float().double(), timestep, return_dict=False)[0]
            x = angle.cos() * landed - angle.sin() * v
            landed = end.cos() * x + end.sin() / angle.sin() * (landed - angle.cos() * x)
    ratio = angles[2].sin() / angles[0].sin()
    target = (landed - ratio * begin) / (angles[2].cos() - ratio * angles[0].cos())
    return (examples.target.double() - target).abs().max().item()
