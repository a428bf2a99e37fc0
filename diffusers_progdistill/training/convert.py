"""Conversion: a model of any variance preserving schedule becomes one of ours, of the same quality, in one stage."""

from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..families.unet2d import make_converted_student
from ..objectives.conversion import ConversionObjective
from ..pipelines.export import attach_metadata
from ..schedulers import ProgressiveDistillationScheduler
from .config import TEACHER_FLAG, ConversionConfig
from .isolation import isolated
from .launcher import prepare_frozen
from .plan import build_conversion_stage, print_plan
from .run import Run, open_run
from .single import run_single
from .task import StageTask


@isolated()
def convert(config: ConversionConfig) -> Path:
    """
    Make a model of the canonical schedule, of zero terminal SNR and sampled at any number of steps, out of a model of
    another schedule, of another prediction type, or out of guided sampling (Meng et al., 2022, stage one).

    Args:
        config ([`ConversionConfig`]): All options.

    Returns:
        `Path`: The pipeline folder. If it is there already, finished with the same settings, nothing is done.

    Raises:
        [`InputError`]: For options that cannot work and models that need no conversion, before anything is written.
        `FloatingPointError`: If too many updates are not finite.
        [`StoppedBySignal`]: After SIGTERM or SIGINT, when a checkpoint is written.
    """
    run = open_run(config)
    # From here on the run's own options: what is settled is not written into the caller's.
    config = run.config
    if not run.teacher.reasons:
        raise InputError(
            f"{TEACHER_FLAG} can be distilled on its own schedule and predicts {config.prediction_type} already: give"
            " it to `progdistill distill` as it is"
        )
    task = build_conversion(run)
    if config.dry_run:
        print_plan(run, [task.stage], {task.stage.kind: task})
        return Path(config.output_dir)
    return run_single(run, task, run.teacher.model.family)


def build_conversion(run: Run) -> StageTask:
    """The conversion stage of a run."""
    config, teacher = run.config, run.teacher.model
    own = teacher.scheduler
    length = {"num_train_timesteps": own.config.num_train_timesteps} if own.schedule.is_canonical else {}
    scheduler = ProgressiveDistillationScheduler(prediction_type=config.prediction_type, **length)
    scheduler = attach_metadata(scheduler, weighting=config.weighting, **run.teacher.metadata)
    student = make_converted_student(teacher.denoiser, scheduler)
    frozen = prepare_frozen(run.accelerator, teacher.network)
    guided = replace(teacher.denoiser, network=frozen, guidance_scale=config.guidance_scale)
    objective = ConversionObjective(student, config.weighting, guided)
    return StageTask(
        build_conversion_stage(config), objective, scheduler, config.ema_decay if config.use_ema else None
    )
