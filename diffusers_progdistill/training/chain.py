"""The chain: halve the teacher's steps again and again, save each student, measure it (Algorithm 2)."""

import copy
import os
import shutil
import time
from pathlib import Path

from ..data import load_data
from ..errors import InputError
from ..evaluation.metrics import generate
from ..evaluation.pictures import save_curve, save_rows
from ..pipelines.export import save_pipeline, with_metadata
from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from ..record import Record
from .config import DistillationConfig
from .loop import train_stage
from .monitor import Monitor
from .setup import check_batch, check_resolution, load_teacher, make_accelerator, settings_of, start_trackers
from .stages import HalvingObjective, Stage


# Steps at which the teacher's own curve is flat: the reference of every measurement.
REFERENCE_STEPS = 256
GRID_COLUMNS = 12


def plan_of(config: DistillationConfig) -> list[Stage]:
    """The stages of a chain in order."""
    return [Stage(f"steps-{n}", n, config.updates_of(n), units_per_update=5) for n in config.student_steps()]


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
    if record.finished:
        accelerator.print(f"the chain in {folder} is finished already: {', '.join(s.name for s in plan)}")
        return folder
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        record.write()
    start_trackers(accelerator, record.content["settings"])
    pipeline.unet.requires_grad_(False).eval().to(accelerator.device)
    report = Report(config, record, data, pipeline) if accelerator.is_main_process else None

    done = [s for s in plan if record.stage(s.name)]
    monitor = Monitor(accelerator, folder, sum(s.forward_units for s in plan), sum(s.forward_units for s in done))
    for number, stage in enumerate(plan, 1):
        if record.stage(stage.name):
            accelerator.print(f"{stage.name} is there already")
            pipeline = load_student(folder / stage.name, accelerator.device)
        else:
            monitor.start(stage, number, len(plan), global_batch)
            pipeline = run_stage(accelerator, config, pipeline, data, stage, monitor, record)
        if report is not None:
            monitor.paused += report.add_student(stage, pipeline)
        accelerator.wait_for_everyone()
    if report is not None:
        report.finish()
        record.update(finished=True)
    accelerator.end_training()
    return folder


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


class Report:
    """Pictures and figures of a chain as it grows."""

    def __init__(self, config, record: Record, data, teacher):
        self.config, self.record, self.teacher = config, record, teacher
        self.rows, self.metric, self.seconds = [], None, 0.0
        began = time.perf_counter()
        start = config.start_steps
        self.rows.append((f"teacher, {start} steps", generate(teacher, GRID_COLUMNS, start)))
        evaluation = record.content.get("evaluation") or {"students": {}, "teacher": {}}
        self.evaluation = evaluation
        if config.eval_images:
            from ..evaluation.metrics import FrechetDistance

            self.metric = FrechetDistance(data, batch_size=config.eval_batch_size)
            evaluation.update(metric=self.metric.name, num_images=config.eval_images, seed=0, floor=self.metric.floor)
            self._measure("teacher", teacher, REFERENCE_STEPS)
        self.seconds += time.perf_counter() - began

    def _measure(self, kind: str, pipeline, steps: int):
        figures = self.evaluation[kind]
        if self.metric is not None and str(steps) not in figures:
            images = generate(pipeline, self.config.eval_images, steps, 0, self.config.eval_batch_size)
            figures[str(steps)] = self.metric.distance(images)

    def add_student(self, stage: Stage, pipeline) -> float:
        """Add a finished student; returns the seconds it took, which are not training."""
        began = time.perf_counter()
        self.rows.append(
            (f"{stage.number} step{'s' * (stage.number > 1)}", generate(pipeline, GRID_COLUMNS, stage.number))
        )
        self._measure("students", pipeline, stage.number)
        self._measure("teacher", self.teacher, stage.number)
        save_rows(self.rows, self.record.folder / "samples.png")
        if self.metric is not None:
            self.record.update(evaluation=self.evaluation)
        seconds = time.perf_counter() - began
        self.seconds += seconds
        return seconds

    def finish(self):
        """Draw the curve and print the table."""
        folder = self.record.folder
        training = sum(s["seconds"] for s in self.record.content["stages"])
        if self.metric is not None:
            students, teacher = ({int(k): v for k, v in self.evaluation[n].items()} for n in ("students", "teacher"))
            save_curve(students, teacher, self.metric.floor, self.metric.name, folder / "curve.png")
            print(self._table(students, teacher))
        print(f"training {training:.0f} s, evaluation {self.seconds:.0f} s; pictures and students are in {folder}")

    def _table(self, students, teacher) -> str:
        lines = [f"{self.metric.name}, {self.config.eval_images} images, lower is better", ""]
        lines.append(f"{'steps':>6}{'student':>10}{'teacher, DDIM':>16}")
        for steps in sorted(teacher, reverse=True):
            student = f"{students[steps]:.2f}" if steps in students else "-"
            lines.append(f"{steps:>6}{student:>10}{teacher[steps]:>16.2f}")
        return "\n".join([*lines, f"real images, one half against the other: {self.metric.floor:.2f}", ""])


def print_plan(config, pipeline, data, plan: list[Stage], accelerator, global_batch: int, measured: int = 5):
    """Print what would be done, with the time of a few real updates on this machine."""

    teacher = pipeline.unet.requires_grad_(False).eval().to(accelerator.device)
    student = copy.deepcopy(teacher).requires_grad_(True)
    kind, num_train = config.prediction_type, pipeline.scheduler.config.num_train_timesteps
    objective = HalvingObjective(teacher, kind, plan[0].number, kind, config.weighting, num_train, accelerator.device)
    silent = Monitor(accelerator, None, 1)
    seconds = []
    for updates in (1, measured):
        stage = Stage("plan", 0, updates, 5)
        silent.start(stage, 1, 1, global_batch)
        began = time.perf_counter()
        train_stage(accelerator, copy.deepcopy(student), objective, data, stage, config, silent)
        seconds.append(time.perf_counter() - began)
    per_update = max(seconds[1] - seconds[0], 0.0) / (measured - 1)
    parameters = sum(p.numel() for p in teacher.parameters())
    total = sum(s.updates for s in plan)
    print(f"teacher: {config.pretrained_teacher_model}, {kind}, {parameters:,} parameters, no adopt stage needed")
    print(f"data: {len(data):,} images, {data.channels}x{data.resolution}x{data.resolution}")
    print(f"global batch: {global_batch}, weighting: {config.weighting}")
    for stage in plan:
        print(
            f"  {2 * stage.number:>5} -> {stage.number:<5} steps {stage.updates:>9,} updates"
            f" {stage.forward_units:>11,} forward units  about {stage.updates * per_update:,.0f} s"
        )
    print(
        f"  total {sum(s.forward_units for s in plan):,} forward units, about {total * per_update:,.0f} s of training"
    )
    print("nothing was written (--dry_run)")
