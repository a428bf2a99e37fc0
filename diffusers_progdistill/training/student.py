"""One stage's model: trained, then written as a pipeline folder and as a line of the record."""

from ..disk import replace_folder, writing
from ..families import Family, Model
from ..record import Record
from .checkpointing import Checkpoints
from .loop import StageResult, StageTrainer
from .monitor import Monitor
from .run import Run
from .signals import StopRequest
from .task import StageTask


def train_task(run: Run, task: StageTask, monitor: Monitor, record: Record, stop: StopRequest) -> StageResult:
    """
    Train a stage's network from its newest checkpoint, or from the beginning.

    Args:
        run ([`Run`]), task ([`StageTask`]): What is trained, and on what.
        monitor ([`Monitor`]), record ([`Record`]), stop ([`StopRequest`]): Of the run.
    """
    config, network = run.config, task.objective.student.network
    if config.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    checkpoints = make_checkpoints(run, task, record)
    try:
        result = StageTrainer(run, task, monitor, checkpoints, stop).train()
    finally:
        monitor.finish()
    result.network.requires_grad_(False)
    return result


def make_checkpoints(run: Run, task: StageTask, record: Record) -> Checkpoints:
    """The checkpoints of a stage."""
    config = run.config
    return Checkpoints(
        run.accelerator, record.folder, task.stage.name, config.checkpoints_total_limit, config.resume_from_checkpoint
    )


def make_student(
    run: Run, task: StageTask, teacher: Model, monitor: Monitor, record: Record, stop: StopRequest
) -> Model:
    """
    Train a student and write it to `OUTPUT_DIR/NAME_OF_THE_STAGE`.

    Returns:
        [`Model`]: The student, frozen.
    """
    with stop.deferred():
        result = train_task(run, task, monitor, record, stop)
        student = teacher.family.build_model(result.network, task.scheduler, teacher)
        if run.is_main:
            # The folder first, then the line of the record that says so.
            replace_folder(
                record.folder / task.stage.name, lambda folder: teacher.family.save_student(student, folder)
            )
            record.add_stage(describe_stage(task, result))
            make_checkpoints(run, task, record).clear()
    return student


def make_single(
    run: Run, task: StageTask, family: Family, monitor: Monitor, record: Record, stop: StopRequest
) -> None:
    """Train the only model of a run, write it to the output folder itself, and finish its record."""
    with stop.deferred():
        result = train_task(run, task, monitor, record, stop)
        model = family.build_model(result.network, task.scheduler, None)
        if run.is_main:
            with writing(record.folder):
                family.save_student(model, record.folder)
            record.update(stages=[describe_stage(task, result)], finished=True)
            make_checkpoints(run, task, record).clear()


def describe_stage(task: StageTask, result: StageResult) -> dict:
    """What the record says of a finished stage."""
    stage = task.stage
    return {
        "name": stage.name,
        **({"num_inference_steps": stage.num_steps} if stage.is_distillation else {}),
        "updates": result.updates,
        "forward_passes": round(result.updates * stage.passes_per_update),
        "seconds": round(result.seconds, 1),
        "loss": result.loss,
        "skipped_updates": result.skipped,
        **({} if result.loss_scale is None else {"loss_scale": result.loss_scale}),
    }
