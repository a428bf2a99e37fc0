"""Conversion: a model of any variance preserving schedule becomes one of ours, of the same quality, in one stage."""

from pathlib import Path

from ..errors import InputError
from ..pipelines.export import with_metadata
from ..schedulers import ProgressiveDistillationScheduler
from .config import ConversionConfig
from .isolation import isolated
from .network import make_converted_network
from .plan import build_conversion_stage, print_plan
from .pretrained import FLAG
from .run import Run, open_run, run_alone
from .stages import ConversionObjective


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
            f"{FLAG} is on the canonical schedule and predicts {config.prediction_type} already: give it to"
            " `progdistill distill` as it is"
        )
    stage = build_conversion_stage(config)
    network, objective, scheduler = build_conversion(run)
    if config.dry_run:
        print_plan(run, [stage], {stage.kind: (network, objective)})
        return Path(config.output_dir)
    return run_alone(run, network, objective, scheduler, stage, config.ema_decay if config.use_ema else None)


def build_conversion(run: Run):
    """The network that conversion starts from, its loss, and the scheduler that is stored beside it."""
    config, teacher = run.config, run.teacher
    own = teacher.pipeline.scheduler
    canonical = own.schedule.is_canonical
    scheduler = ProgressiveDistillationScheduler(
        **({"num_train_timesteps": own.config.num_train_timesteps} if canonical else {}),
        prediction_type=config.prediction_type,
    )
    scheduler = with_metadata(scheduler, weighting=config.weighting, **teacher.metadata)
    num_train = scheduler.config.num_train_timesteps
    network = make_converted_network(teacher.pipeline.unet, teacher.prediction_type, config.prediction_type)
    objective = ConversionObjective(
        teacher.as_conversion_teacher(), config.prediction_type, config.weighting, num_train
    )
    return network, objective, scheduler
