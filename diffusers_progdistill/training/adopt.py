"""Adopting: a model of any variance preserving schedule becomes one of ours, of the same quality, in one stage."""

from pathlib import Path

from ..errors import InputError
from ..pipelines.export import with_metadata
from ..schedulers import ProgressiveDistillationScheduler
from .config import AdoptionConfig
from .isolation import isolated
from .network import adopted_network
from .plan import adopt_stage, print_plan
from .pretrained import FLAG
from .run import Run, open_run, run_alone
from .stages import AdoptObjective


@isolated()
def adopt(config: AdoptionConfig) -> Path:
    """
    Make a model of the canonical schedule, of zero terminal SNR and sampled at any number of steps, out of a model of
    another schedule, of another prediction type, or out of guided sampling (Meng et al., 2022, stage one).

    Args:
        config ([`AdoptionConfig`]): All options.

    Returns:
        `Path`: The pipeline folder. If it is there already, finished with the same settings, nothing is done.

    Raises:
        [`InputError`]: For options that cannot work and models that need no adopting, before anything is written.
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
    stage = adopt_stage(config)
    network, objective, scheduler = adopting_parts(run)
    if config.dry_run:
        print_plan(run, [stage], {stage.kind: (network, objective)})
        return Path(config.output_dir)
    return run_alone(run, network, objective, scheduler, stage, config.ema_decay if config.use_ema else None)


def adopting_parts(run: Run):
    """The network that adopting starts from, its loss, and the scheduler that is stored beside it."""
    config, teacher = run.config, run.teacher
    own = teacher.pipeline.scheduler
    canonical = own.schedule.is_canonical
    scheduler = ProgressiveDistillationScheduler(
        **({"num_train_timesteps": own.config.num_train_timesteps} if canonical else {}),
        prediction_type=config.prediction_type,
    )
    scheduler = with_metadata(scheduler, weighting=config.weighting, **teacher.metadata)
    num_train = scheduler.config.num_train_timesteps
    network = adopted_network(teacher.pipeline.unet, teacher.prediction_type, config.prediction_type)
    objective = AdoptObjective(teacher.as_foreign(), config.prediction_type, config.weighting, num_train)
    return network, objective, scheduler
