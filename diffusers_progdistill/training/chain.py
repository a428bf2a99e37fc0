"""The chain: halve the teacher's steps again and again, save each student, measure it (Algorithm 2)."""

import contextlib
import sys
from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from ..data.findings import REPLACED
from ..errors import InputError, PublishError
from ..families import Model, open_model
from ..hub.folder import Publication, publish_folder, write_card
from ..hub.upload import open_repository
from ..objectives.registry import find_objective
from ..objectives.stage import Stage
from ..pipelines.loading import ModelSource
from ..record import Record, drop_missing_stages, only_process_in
from .config import DistillationConfig
from .convert import build_conversion
from .initial_steps import resolve_start
from .isolation import isolated
from .launcher import describe_hardware, prepare_frozen
from .monitor import Monitor
from .optimizer import restore_scale
from .plan import CONVERSION_STAGE, build_plan, describe_saturation, print_plan, share_of_data
from .recipes import describe_recipe
from .report import Report
from .run import Run, Teacher, check_classes, check_resume, describe_run, open_run
from .signals import StopRequest, agree_to_stop
from .student import make_student
from .task import StageTask
from .trackers import finish_trackers, start_trackers


@isolated()
def distill(config: DistillationConfig) -> Path:
    """
    Distil a teacher into students of half its steps, half of that, ... (Algorithm 2). Each student is saved as
    `output_dir/steps-N` the moment its stage ends; an unfinished chain goes on at the newest checkpoint of the first
    missing student. A teacher on another schedule, of another output or with guidance is converted first, as
    `output_dir/teacher`.

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
    asked_solver, run = config.teacher_solver, resolve_start(open_run(config))
    config = run.config
    run.accelerator.print(describe_recipe(config))
    if config.teacher_solver is None and asked_solver is not None:
        why = "the teacher is a student, whose steps are taken as they are"
        run.accelerator.print(f"--teacher_solver {asked_solver} changes nothing: {why}")
    check_steps(config, run.teacher)
    if config.eval_images and config.feature_extractor == "classifier" and run.data.labels is None:
        raise InputError("--feature_extractor classifier needs labels: give --class_column")
    folder, plan = Path(config.output_dir), build_plan(config, run.teacher)
    if config.dry_run:
        if run.codec.is_bounded:
            run.accelerator.print(describe_saturation(share_of_data(run.data), config.clip_loss))
        print_plan(run, plan, list_kinds(run, plan))
        return folder
    settings = run.settings()
    # A teacher that `train-teacher` made may lie there, unless a converted one is to.
    own_names = () if run.teacher.reasons else (CONVERSION_STAGE,)
    record = Record(folder, settings, own_names)
    check_resume(config, record)
    check_classes(record, run.teacher.metadata)
    hub = None
    if run.is_main and config.push_to_hub:
        # A token that may not write to the repository is refused here, before any training.
        name = config.hub_model_id or folder.resolve().name
        hub = open_repository(name, config.hub_token, config.hub_private_repo, config.hub_license)
    with only_process_in(folder) if run.is_main else contextlib.nullcontext():
        # Read again, now that no other process writes to it.
        record = Record(folder, settings, own_names)
        if record.finished:
            run.accelerator.print(f"the chain in {folder} is finished already: {', '.join(s.name for s in plan)}")
            if hub:
                publish_folder(folder, drop_missing_stages(folder, record.content), hub, config.hub_token)
        else:
            run_chain(run, plan, record, hub)
    return folder


def run_chain(run: Run, plan: list[Stage], record: Record, hub: dict | None) -> None:
    """Train and publish what is not finished."""
    # Every process has read the record before the main one writes to it.
    run.accelerator.wait_for_everyone()
    with StopRequest() as stop:
        if run.is_main:
            about = describe_run(run.config, run.teacher, run.data)
            hardware = describe_hardware(run.accelerator)
            record.update(about=about, hardware=hardware, **({"hub": hub} if hub else {}))
        start_trackers(run.accelerator, record.content["settings"])
        publication = Publication(record.folder, hub["repo_id"], run.config.hub_token, tqdm.write) if hub else None
        try:
            train_chain(run, plan, record, publication, stop)
            # Still in here, so that no signal falls between the training and the wait for what is to be published.
            stop.defer_rest()
        finally:
            # What is finished goes to the Hub even when a later stage fails.
            if publication is not None:
                close_publication(publication, stop)


def check_steps(config: DistillationConfig, teacher: Teacher) -> None:
    """Refuse numbers of steps that the teacher was not made for, and what its family cannot do."""
    trained = teacher.model.num_trained_steps
    if trained is not None and trained != config.start_steps:
        raise InputError(f"--start_steps {config.start_steps} must be {trained}, which the teacher was distilled for")
    if trained is None and config.stochastic_sampler:
        raise InputError("--stochastic_sampler needs a --pretrained_teacher_model that was distilled to --start_steps")
    teacher.model.family.check_options(config)
    for steps in config.student_steps():
        teacher.model.family.check_steps(teacher.model, steps)


def list_kinds(run: Run, plan: list[Stage]) -> dict[tuple, StageTask]:
    """A task of each kind of stage in a plan, for `--dry_run`."""
    kinds, teacher = {}, run.teacher.model
    if run.teacher.reasons:
        task = build_conversion(run)
        kinds[plan[0].kind] = task
        teacher = teacher.family.build_model(task.objective.student.network, task.scheduler, teacher)
    for stage in plan:
        if stage.is_distillation and stage.kind not in kinds:
            kinds[stage.kind] = build_distillation(run, teacher, stage)
    return kinds


def train_chain(
    run: Run, plan: list[Stage], record: Record, publication: Publication | None, stop: StopRequest
) -> None:
    """Every stage that is not finished, each with its measurements, its card and its turn to be published."""
    accelerator, model = run.accelerator, run.teacher.model
    report = Report(run.config, record, run.data, run.teacher, accelerator)
    done = [s for s in plan if record.stage(s.name)]
    monitor = Monitor(
        accelerator, record.folder, sum(s.forward_passes for s in plan), sum(s.forward_passes for s in done)
    )
    for number, stage in enumerate(plan, 1):
        if record.stage(stage.name):
            accelerator.print(f"{stage.name} is there already")
            source = ModelSource(str(record.folder / stage.name), "student")
            model = open_model(source).freeze(accelerator.device)
            restore_scale(accelerator, record.stage(stage.name).get("loss_scale"))
        else:
            updates_before = sum(s.updates for s in plan[: number - 1])
            monitor.start(stage, number, len(plan), run.global_batch, updates_before)
            task = build_conversion(run) if stage.name == CONVERSION_STAGE else build_distillation(run, model, stage)
            model = make_student(run, task, model, monitor, record, stop)
            # A signal during the last update, or while the student was written, found no checkpoint to write.
            if agree_to_stop(accelerator, stop):
                stop.stop()
        monitor.paused += report.add_student(stage, model.pipeline)
        if run.is_main and stage.name != CONVERSION_STAGE:
            card = write_card(record.folder, record.content, stage.num_steps)
            if publication is not None:
                publication.add(stage.name, card)
        accelerator.wait_for_everyone()
    if run.is_main:
        report.finish()
        record.update(finished=True)
        run.data.findings.say(REPLACED)
    finish_trackers(accelerator)
    # What comes after may need what the main process wrote.
    accelerator.wait_for_everyone()


def close_publication(publication: Publication, stop: StopRequest) -> None:
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


def build_distillation(run: Run, teacher: Model, stage: Stage) -> StageTask:
    """The distillation stage of a teacher, which its student starts as."""
    config, denoiser = run.config, teacher.denoiser
    # Guidance is folded in once: by the conversion stage, or else by the first distillation stage.
    guidance_scale = config.guidance_scale if teacher is run.teacher.model else 1.0
    frozen = replace(
        denoiser, network=prepare_frozen(run.accelerator, denoiser.network), guidance_scale=guidance_scale
    )
    objective = find_objective(config.objective).build(denoiser.make_student(), frozen, stage, config)
    learned = {"objective": config.objective} if config.weighting is None else {"weighting": config.weighting}
    metadata = {"num_inference_steps": stage.num_steps, **learned, **run.teacher.metadata}
    if config.stochastic_sampler:
        metadata["stochastic_sampler"] = True
    scheduler = teacher.family.build_scheduler(teacher, **metadata)
    return StageTask(stage, objective, scheduler, config.ema_decay if config.use_ema else None)
