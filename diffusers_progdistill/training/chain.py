"""The chain: halve the teacher's steps again and again, save each student, measure it (Algorithm 2)."""

import contextlib
import copy
import sys
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from tqdm.auto import tqdm

from ..data import ImageData, load_data
from ..disk import replace_folder
from ..errors import InputError, PublishError
from ..hub.folder import Publication, publish_folder, write_card
from ..hub.upload import open_repository
from ..pipelines.export import save_pipeline, with_metadata
from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from ..record import Record, only_process_in, with_students
from .checkpointing import Checkpoints
from .config import DistillationConfig
from .loop import StageResult, train_stage
from .monitor import Monitor
from .plan import plan_of, print_plan
from .report import Report
from .setup import (
    about_of,
    check_batch,
    check_resolution,
    check_resume,
    load_teacher,
    make_accelerator,
    settings_of,
    start_trackers,
)
from .signals import StopRequest, anybody_asked_to_stop
from .stages import HalvingObjective, Stage


@dataclass
class Run:
    """What the options of a chain name, loaded and checked."""

    config: DistillationConfig
    accelerator: Accelerator
    teacher: ProgressiveDistillationPipeline
    data: ImageData
    plan: list[Stage]
    global_batch: int

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process


def distill(config: DistillationConfig) -> Path:
    """
    Distil a teacher into students of half its steps, half of that, ... (Algorithm 2). Each student is saved as
    `output_dir/steps-N` the moment its stage ends; an unfinished chain goes on at the newest checkpoint of the first
    missing student.

    Args:
        config ([`DistillationConfig`]): All options.

    Returns:
        `Path`: The output folder.

    Raises:
        [`InputError`]: For options that cannot work, before anything is written.
        `FloatingPointError`: If too many updates are not finite; the students made so far are kept.
        [`DiskError`]: If something cannot be written; what was finished before is whole.
        [`PublishError`]: If everything was trained, but something is not on the Hub.
        [`StoppedBySignal`]: After SIGTERM or SIGINT, when a checkpoint is written.
    """
    run = open_run(config)
    folder = Path(config.output_dir)
    if config.dry_run:
        print_plan(config, run.teacher, run.data, run.plan, run.accelerator, run.global_batch)
        return folder
    settings = settings_of(config, run.data, run.global_batch)
    record = Record(folder, settings, own_names=("teacher",))
    check_resume(config, record)
    hub = open_hub(config) if run.is_main and config.push_to_hub else None
    with only_process_in(folder) if run.is_main else contextlib.nullcontext():
        # Read again, now that no other process writes to it.
        record = Record(folder, settings, own_names=("teacher",))
        if record.finished:
            run.accelerator.print(f"the chain in {folder} is finished already: {', '.join(s.name for s in run.plan)}")
            if hub:
                publish_folder(
                    folder, with_students(folder, record.content), hub["repo_id"], config.hub_token, hub["license"]
                )
        else:
            run_chain(run, record, hub)
    return folder


def run_chain(run: Run, record: Record, hub: dict | None):
    """Train and publish what is not finished."""
    # Every process has read the record before the main one writes to it.
    run.accelerator.wait_for_everyone()
    with StopRequest() as stop:
        if run.is_main:
            about = about_of(run.config, run.teacher, run.data)
            record.update(about=about, **({"hub": hub} if hub else {}))
        start_trackers(run.accelerator, record.content["settings"])
        publication = start_publication(run, record, hub) if hub else None
        try:
            train_chain(run, record, publication, stop)
        finally:
            # What is finished goes to the Hub even when a later stage fails.
            if publication is not None:
                close_publication(publication, stop)


def open_run(config: DistillationConfig) -> Run:
    """Load the teacher and the images, and refuse what does not fit together."""
    config.check()
    accelerator = make_accelerator(config, None if config.dry_run else Path(config.output_dir) / config.logging_dir)
    teacher = load_teacher(config)
    data = load_data(config, teacher.unet.config.in_channels, teacher.unet.config.sample_size)
    check_resolution(data.resolution, teacher.unet.config)
    if config.eval_images and data.labels is None:
        raise InputError("--feature_extractor classifier needs labels: give --class_column")
    global_batch = check_batch(config, len(data), accelerator.num_processes)
    return Run(config, accelerator, teacher, data, plan_of(config), global_batch)


def train_chain(run: Run, record: Record, publication: Publication | None, stop: StopRequest):
    """Every stage that is not finished, each with its measurements, its card and its turn to be published."""
    accelerator, plan = run.accelerator, run.plan
    pipeline = run.teacher
    pipeline.unet.requires_grad_(False).eval().to(accelerator.device)
    report = Report(run.config, record, run.data, pipeline, accelerator)
    done = [s for s in plan if record.stage(s.name)]
    monitor = Monitor(
        accelerator, record.folder, sum(s.forward_units for s in plan), sum(s.forward_units for s in done)
    )
    for number, stage in enumerate(plan, 1):
        if record.stage(stage.name):
            accelerator.print(f"{stage.name} is there already")
            pipeline = load_student(record.folder / stage.name, accelerator.device)
        else:
            monitor.start(stage, number, len(plan), run.global_batch)
            pipeline = run_stage(run, pipeline, stage, monitor, record, stop)
            # A signal during the last update, or while the student was written, found no checkpoint to write.
            if anybody_asked_to_stop(accelerator, stop):
                stop.stop()
        monitor.paused += report.add_student(stage, pipeline)
        if run.is_main:
            write_card(record.folder, record.content)
        if publication is not None:
            publication.add(stage.name, stage.number)
        accelerator.wait_for_everyone()
    if run.is_main:
        report.finish()
        record.update(finished=True)
    accelerator.end_training()


def open_hub(config: DistillationConfig) -> dict:
    """The repository of the run; a token that may not write to it is refused here, before any training."""
    name = config.hub_model_id or Path(config.output_dir).resolve().name
    repo_id = open_repository(name, config.hub_token, config.hub_private_repo, config.hub_license)
    return {"repo_id": repo_id, "license": config.hub_license}


def start_publication(run: Run, record: Record, hub: dict) -> Publication:
    """The background publisher, which begins with what an earlier try at the run left; in the order of the chain."""
    config = run.config
    publication = Publication(
        record.folder, record.content, hub["repo_id"], config.hub_token, hub["license"], tqdm.write
    )
    measured = (record.content.get("evaluation") or {}).get("students", {})
    for stage in run.plan:
        if record.stage(stage.name) and (not config.eval_images or str(stage.number) in measured):
            publication.add(stage.name, stage.number)
    publication.start()
    return publication


def close_publication(publication: Publication, stop: StopRequest):
    """Wait for the queue, as long as a signal leaves time. What ended the training comes before what is missing."""
    failure = sys.exception()
    with stop.deferred():
        try:
            publication.close(stop.seconds_left)
        except PublishError as error:
            if failure is None and not stop.requested:
                raise
            tqdm.write(f"progdistill: {error}", file=sys.stderr)
    if failure is None and stop.requested:
        stop.stop()


def load_student(folder: Path, device) -> ProgressiveDistillationPipeline:
    """A finished student, frozen, to teach the next or to be measured."""
    pipeline = ProgressiveDistillationPipeline.from_pretrained(folder).to(device)
    pipeline.unet.requires_grad_(False).eval()
    return pipeline


def run_stage(run: Run, teacher, stage: Stage, monitor: Monitor, record: Record, stop: StopRequest):
    """One halving: from the teacher's pipeline to the student's, on disk."""
    accelerator, config = run.accelerator, run.config
    student = copy.deepcopy(teacher.unet).requires_grad_(True)
    for module in student.modules():
        # The paper distils without dropout.
        if type(module).__name__ == "Dropout":
            module.p = 0.0
    if config.gradient_checkpointing:
        student.enable_gradient_checkpointing()
    scheduler = with_metadata(teacher.scheduler, num_inference_steps=stage.number, weighting=config.weighting)
    objective = HalvingObjective(
        teacher.unet,
        teacher.scheduler.config.prediction_type,
        stage.number,
        config.prediction_type,
        config.weighting,
        scheduler.config.num_train_timesteps,
        accelerator.device,
    )
    ema_decay = config.ema_decay if config.use_ema else None
    checkpoints = Checkpoints(
        accelerator, record.folder, stage.name, config.checkpoints_total_limit, config.resume_from_checkpoint
    )
    with stop.deferred():
        try:
            result = train_stage(
                accelerator, student, objective, run.data, stage, config, monitor, ema_decay, checkpoints, stop
            )
        finally:
            monitor.finish()
        student.requires_grad_(False)
        if accelerator.is_main_process:
            finish_stage(record, stage, result, student, scheduler)
            checkpoints.clear()
    return ProgressiveDistillationPipeline(student, scheduler)


def finish_stage(record: Record, stage: Stage, result: StageResult, student, scheduler):
    """Write the student, then the line of the record that says so."""
    replace_folder(record.folder / stage.name, lambda folder: save_pipeline(student, scheduler, folder))
    entry = {
        "name": stage.name,
        "num_inference_steps": stage.number,
        "updates": stage.updates,
        "forward_units": stage.forward_units,
        "seconds": round(result.seconds, 1),
        "loss": result.loss,
        "skipped_updates": result.skipped,
    }
    record.add_stage(entry)
