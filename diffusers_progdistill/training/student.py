"""One stage's model: trained, then written as a pipeline folder and as a line of the record."""

from ..disk import replace_folder, writing
from ..pipelines.export import save_pipeline
from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from ..record import Record
from .checkpointing import Checkpoints
from .loop import StageResult, train_stage
from .stages import Stage


def make_student(
    run, network, objective, scheduler, stage: Stage, monitor, record: Record, stop, ema_decay=None, alone=False
):
    """
    Train a model and write it to `OUTPUT_DIR/<name of the stage>`.

    Args:
        run ([`Run`]): The options, processes and images.
        network ([`UNet2DModel`]): What training starts from.
        objective ([`Objective`]): The loss.
        scheduler ([`ProgressiveDistillationScheduler`]): What is stored beside the network.
        stage ([`Stage`]), monitor ([`Monitor`]), record ([`Record`]), stop ([`StopRequest`]): Of the run.
        ema_decay (`float`, *optional*): See [`train_stage`].
        alone (`bool`, defaults to `False`): Write it to the output folder itself, whose record it finishes.

    Returns:
        [`ProgressiveDistillationPipeline`]: The model, frozen.
    """
    accelerator, config = run.accelerator, run.config
    if config.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    checkpoints = Checkpoints(
        accelerator, record.folder, stage.name, config.checkpoints_total_limit, config.resume_from_checkpoint
    )
    with stop.deferred():
        try:
            result = train_stage(
                accelerator, network, objective, run.data, stage, config, monitor, ema_decay, checkpoints, stop
            )
        finally:
            monitor.finish()
        network = result.network.requires_grad_(False)
        if accelerator.is_main_process:
            # The folder first, then the line of the record that says so.
            if alone:
                with writing(record.folder):
                    save_pipeline(network, scheduler, record.folder)
                record.update(stages=[describe_stage(stage, result, scheduler)], finished=True)
            else:
                replace_folder(record.folder / stage.name, lambda folder: save_pipeline(network, scheduler, folder))
                record.add_stage(describe_stage(stage, result, scheduler))
            checkpoints.clear()
    return ProgressiveDistillationPipeline(network, scheduler)


def describe_stage(stage: Stage, result: StageResult, scheduler) -> dict:
    """What the record says of a finished stage."""
    steps = scheduler.num_trained_steps
    return {
        "name": stage.name,
        **({} if steps is None else {"num_inference_steps": steps}),
        "updates": result.updates,
        "forward_passes": round(result.updates * stage.passes_per_update),
        "seconds": round(result.seconds, 1),
        "loss": result.loss,
        "skipped_updates": result.skipped,
        **({} if result.loss_scale is None else {"loss_scale": result.loss_scale}),
    }
