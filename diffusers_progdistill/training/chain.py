"""The chain: halve the teacher's steps again and again, save each student, measure it (Algorithm 2)."""

import copy
import os
import shutil
from pathlib import Path

from tqdm.auto import tqdm

from ..data import load_data
from ..errors import InputError
from ..hub.folder import Publication, publish_folder, write_card
from ..hub.upload import open_repository
from ..pipelines.export import save_pipeline, with_metadata
from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from ..record import Record
from .config import DistillationConfig
from .loop import train_stage
from .monitor import Monitor
from .plan import plan_of, print_plan
from .report import Report
from .setup import (
    about_of,
    check_batch,
    check_resolution,
    load_teacher,
    make_accelerator,
    settings_of,
    start_trackers,
)
from .stages import HalvingObjective, Stage


def distill(config: DistillationConfig) -> Path:
    """
    Distil a teacher into students of half its steps, half of that, ... (Algorithm 2). Each student is saved as
    `output_dir/steps-N` the moment its stage ends; an unfinished chain goes on at the first missing student.

    Args:
        config ([`DistillationConfig`]): All options.

    Returns:
        `Path`: The output folder.

    Raises:
        [`InputError`]: For options that cannot work, before anything is written.
        `FloatingPointError`: If a loss stops being finite; the students made so far are kept.
        [`PublishError`]: If everything was trained, but something is not on the Hub.
    """
    config.check()
    folder = Path(config.output_dir)
    accelerator = make_accelerator(config, None if config.dry_run else folder / config.logging_dir)
    pipeline = load_teacher(config)
    data = load_data(config, pipeline.unet.config.in_channels, pipeline.unet.config.sample_size)
    check_resolution(data.resolution, pipeline.unet.config)
    if config.eval_images and data.labels is None:
        raise InputError("--feature_extractor classifier needs labels: give --class_column")
    global_batch = check_batch(config, len(data), accelerator.num_processes)
    plan = plan_of(config)
    if config.dry_run:
        print_plan(config, pipeline, data, plan, accelerator, global_batch)
        return folder
    record = Record(folder, settings_of(config, data, global_batch), own_names=("teacher",))
    is_main = accelerator.is_main_process
    hub = open_hub(config) if is_main and config.push_to_hub else None
    if record.finished:
        accelerator.print(f"the chain in {folder} is finished already: {', '.join(s.name for s in plan)}")
        if hub:
            publish_folder(folder, record.content, hub["repo_id"], config.hub_token, hub["license"])
        return folder
    accelerator.wait_for_everyone()
    if is_main:
        record.update(about=about_of(config, pipeline, data), **({"hub": hub} if hub else {}))
    start_trackers(accelerator, record.content["settings"])
    pipeline.unet.requires_grad_(False).eval().to(accelerator.device)
    report = Report(config, record, data, pipeline) if is_main else None
    publication = start_publication(config, record, hub) if hub else None

    done = [s for s in plan if record.stage(s.name)]
    monitor = Monitor(accelerator, folder, sum(s.forward_units for s in plan), sum(s.forward_units for s in done))
    try:
        for number, stage in enumerate(plan, 1):
            if record.stage(stage.name):
                accelerator.print(f"{stage.name} is there already")
                pipeline = load_student(folder / stage.name, accelerator.device)
            else:
                monitor.start(stage, number, len(plan), global_batch)
                pipeline = run_stage(accelerator, config, pipeline, data, stage, monitor, record)
            if is_main:
                monitor.paused += report.add_student(stage, pipeline)
                write_card(folder, record.content)
            if publication is not None:
                publication.add(stage.name, stage.number)
            accelerator.wait_for_everyone()
        if is_main:
            report.finish()
            record.update(finished=True)
        accelerator.end_training()
    finally:
        # What is finished goes to the Hub even when a later stage fails.
        if publication is not None:
            publication.close()
    return folder


def open_hub(config: DistillationConfig) -> dict:
    """The repository of the run; a token that may not write to it is refused here, before any training."""
    name = config.hub_model_id or Path(config.output_dir).resolve().name
    repo_id = open_repository(name, config.hub_token, config.hub_private_repo)
    return {"repo_id": repo_id, "license": config.hub_license}


def start_publication(config: DistillationConfig, record: Record, hub: dict) -> Publication:
    """The background publisher; its lines do not break the progress bar."""
    return Publication(record.folder, record.content, hub["repo_id"], config.hub_token, hub["license"], tqdm.write)


def load_student(folder: Path, device) -> ProgressiveDistillationPipeline:
    """A finished student, frozen, to teach the next or to be measured."""
    pipeline = ProgressiveDistillationPipeline.from_pretrained(folder).to(device)
    pipeline.unet.requires_grad_(False).eval()
    return pipeline


def run_stage(accelerator, config, teacher, data, stage: Stage, monitor: Monitor, record: Record):
    """One halving: from the teacher's pipeline to the student's, on disk."""
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
    if accelerator.is_main_process:
        drop_lines(record.folder / "metrics.jsonl", stage.name)
    try:
        result = train_stage(accelerator, student, objective, data, stage, config, monitor, ema_decay)
    finally:
        monitor.finish()
    student.requires_grad_(False)
    if accelerator.is_main_process:
        save_complete(student, scheduler, record.folder / stage.name)
        entry = {
            "name": stage.name,
            "num_inference_steps": stage.number,
            "updates": stage.updates,
            "forward_units": stage.forward_units,
            "seconds": round(result.seconds, 1),
            "loss": result.loss,
        }
        record.add_stage(entry)
    return ProgressiveDistillationPipeline(student, scheduler)


def drop_lines(path: Path, stage_name: str):
    """Forget an interrupted try at a stage: no line of metrics.jsonl twice."""
    if path.exists():
        marker = f'"stage": "{stage_name}"'
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(line for line in lines if marker not in line), encoding="utf-8")


def save_complete(unet, scheduler, folder: Path):
    """Write a pipeline folder under a temporary name and rename it: it is there whole or not at all."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    save_pipeline(unet, scheduler, temporary)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)
