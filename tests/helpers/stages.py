"""Single stages of tiny networks on the digits, without a command."""

from diffusers_progdistill import DistillationConfig, ProgressiveDistillationScheduler
from diffusers_progdistill.data import load_data
from diffusers_progdistill.denoisers.base import Denoiser
from diffusers_progdistill.objectives.denoising import DenoisingObjective
from diffusers_progdistill.objectives.distillation import DistillationLoss, DistillationObjective
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.processes.targets import TargetGrid
from diffusers_progdistill.training.launcher import make_accelerator
from diffusers_progdistill.training.loop import StageResult, StageTrainer
from diffusers_progdistill.training.monitor import Monitor
from diffusers_progdistill.training.run import Run, check_batch
from diffusers_progdistill.training.task import StageTask

from .networks import tiny_unet


SQUARED = DistillationLoss("snr")


def make_run(accelerator=None, **options) -> Run:
    """A run on the digits, in this process unless another accelerator is given; it has no teacher."""
    config = DistillationConfig(dataset_name="digits", **options)
    accelerator, data = accelerator or make_accelerator(config, None), load_data(config)
    return Run(config, accelerator, data, check_batch(config, len(data), accelerator))


def make_denoiser(network=None) -> Denoiser:
    """A network that predicts v on the canonical process."""
    return Denoiser(network or tiny_unet(), ProgressiveDistillationScheduler().schedule, "v_prediction")


def distillation_task(stage: Stage, student=None, teacher=None, loss=SQUARED, ema_decay=None) -> StageTask:
    """A distillation stage, on the CPU."""
    student, teacher = make_denoiser(student), make_denoiser((teacher or tiny_unet()).requires_grad_(False))
    grid = TargetGrid.create(student.process, stage.num_steps, stage.factor, stage.midpoint).to("cpu")
    objective = DistillationObjective(student, teacher, grid, loss)
    return StageTask(stage, objective, ProgressiveDistillationScheduler(), ema_decay)


def denoising_task(stage: Stage, network=None, ema_decay=None) -> StageTask:
    """The training of a teacher."""
    objective = DenoisingObjective(make_denoiser(network), "truncated_snr")
    return StageTask(stage, objective, ProgressiveDistillationScheduler(), ema_decay)


def train(run: Run, task: StageTask, monitor: Monitor | None = None) -> StageResult:
    """Train the stage of a task alone."""
    monitor = monitor or Monitor(run.accelerator, None, task.stage.forward_passes)
    monitor.start(task.stage, 1, 1, run.global_batch)
    return StageTrainer(run, task, monitor).train()
