"""Measure models: a run's teacher and students, or any others, against real images and against each other."""

import copy
import dataclasses
from pathlib import Path

from ..data import load_data
from ..data.sizes import settle
from ..disk import writing
from ..errors import InputError
from ..evaluation.config import EvaluationConfig
from ..evaluation.figures import Evaluation, EvaluationSettings, Subject
from ..evaluation.metrics import load_metrics
from ..evaluation.pictures import save_curve
from ..evaluation.samplers import SAMPLERS
from ..evaluation.store import FILE_NAME, format_table, summarize_rows
from ..families import Model, open_model
from ..hub.folder import write_card
from ..identity import teacher_key
from ..options import DataOptions
from ..paths import settle_path
from ..pipelines.loading import ModelSource
from ..record import RECORD_NAME, TEACHER_KEY, read_finished
from .isolation import isolated
from .launcher import make_evaluation_accelerator
from .plan import CONVERSION_STAGE


# Bytes of decoded real images that are kept in memory; more are read when they are asked for.
IMAGES_IN_MEMORY = 2**28


@isolated()
def evaluate(config: EvaluationConfig, targets: list[str]) -> Path:
    """Measure models into `evaluation.json`, whose path is returned, and draw `curve.png`; a run gets a new card."""
    # What a run's record says is taken into options of our own.
    config = copy.copy(config)
    targets = [settle_path(target, "DIR") for target in targets]
    if unknown := [name for name in split_words(config.samplers) if name not in SAMPLERS]:
        raise InputError(f"--samplers {unknown[0]} is not one of {', '.join(SAMPLERS)}")
    accelerator = make_evaluation_accelerator()
    records = {target: read_finished(Path(target), target) for target in targets if is_run(Path(target))}
    take_data_of(config, records)
    subjects, reference = open_models(config, targets, records)
    models = subjects if reference is None else [*subjects, reference]
    check_shapes(models)
    for model in models:
        model.pipeline.to(accelerator.device)
    channels, side, _ = subjects[0].pipeline.image_shape
    data = load_data(config, channels, side, IMAGES_IN_MEMORY)
    own_folder = Path(targets[0]) if len(records) == 1 == len(targets) else None
    folder = Path(config.output_dir or own_folder or "evaluation")
    metrics = load_metrics(config, config.feature_extractor, config.num_images, data, accelerator)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    seeds = tuple(map(int, split_words(config.seeds)))
    settings = EvaluationSettings(config.num_images, seeds, config.eval_batch_size, config.cache_dir)
    rows = Evaluation(folder, accelerator, metrics, settings, reference).run(subjects)
    if accelerator.is_main_process:
        summaries = summarize_rows(rows)
        print(format_table(summaries))
        save_curve(summaries, folder)
        if folder == own_folder:
            write_card(folder, records[targets[0]])
        print(f"figures and curve are in {folder}")
    accelerator.wait_for_everyone()
    return folder / FILE_NAME


def split_words(text: str) -> list[str]:
    """The words of an option that takes several by commas."""
    return [word.strip() for word in text.split(",")]


def check_shapes(models: list[Subject]) -> None:
    """All are measured with the same real images."""
    first, *others = [("x".join(map(str, model.pipeline.image_shape)), model.name) for model in models]
    for shape, name in others:
        if shape != first[0]:
            raise InputError(f"{name} makes images of {shape} and {first[1]} of {first[0]}: measure them apart")


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run with students, and no model itself."""
    return (folder / RECORD_NAME).exists() and not (folder / "model_index.json").exists()


def take_data_of(config: EvaluationConfig, records: dict[str, dict]) -> None:
    """Measure with the images of the run unless others are named."""
    if config.dataset_name is None and config.train_data_dir is None:
        if not records:
            raise InputError("give the real images by --dataset_name or --train_data_dir")
        settings = next(iter(records.values()))["settings"]
        for one in dataclasses.fields(DataOptions):
            # What was typed stays: the classifier wants labels even where the run did not.
            if one.name in settings and getattr(config, one.name) == one.default:
                setattr(config, one.name, settings[one.name])


def open_models(
    config: EvaluationConfig, targets: list[str], records: dict[str, dict]
) -> tuple[list[Subject], Subject | None]:
    """What is measured, and whose images the others are compared with: the teacher of a run, or the one named."""
    subjects, teachers = [], []
    for target in targets:
        if target not in records:
            model = load_frozen(config, target, variant=config.variant)
            subjects.append(describe_model(config, target, model, config.guidance_scale))
            continue
        models = open_run_models(config, target, records[target])
        if len(records) > 1:
            for model in models:
                model.name = f"{Path(target).name}/{model.name}"
        teachers.append(models[0])
        subjects += models
    names = [subject.name for subject in subjects]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{doubled[0]} would be measured twice: give each model once")
    if (named := config.pretrained_teacher_model) is not None:
        model = load_frozen(config, named, variant=config.variant)
        teachers = [describe_model(config, named, model, config.guidance_scale)]
    different = {teacher.weights for teacher in teachers}
    if len(different) > 1:
        print("no agreement with a teacher is measured: there are several (--pretrained_teacher_model names one)")
    if len(different) != 1:
        return subjects, None
    steps = teachers[0].pipeline.num_trained_steps or config.reference_steps
    return subjects, dataclasses.replace(teachers[0], steps=[steps])


def open_run_models(config: EvaluationConfig, folder: str, record: dict) -> list[Subject]:
    """The teacher of a run, with the guidance that its students have folded in, and what was made of it."""
    made = []
    for stage in record["stages"]:
        name = "converted" if stage["name"] == CONVERSION_STAGE else stage["name"]
        made.append(describe_model(config, name, load_frozen(config, str(Path(folder, stage["name"])))))
    teacher, student = load_teacher_of_run(config, folder, record["settings"]), made[-1].pipeline
    if student.known_labels != teacher.pipeline.known_labels:
        # It draws the classes that its students know.
        null = {} if student.null_label is None else {"null_label": student.null_label}
        known = {"known_labels": student.known_labels, "num_classes": student.num_classes, **null}
        teacher = teacher.family.add_metadata(teacher, **known)
    return [describe_model(config, "teacher", teacher, record["about"].get("guidance_scale", 1.0)), *made]


def load_teacher_of_run(config: EvaluationConfig, folder: str, settings: dict) -> Model:
    """The teacher that a run was made from, as its record says; any other is refused."""
    place = find_teacher(folder, settings["pretrained_teacher_model"])
    model = load_frozen(config, place, revision=settings.get("revision"), variant=settings.get("variant"))
    known = settings.get(TEACHER_KEY)
    if known is not None and teacher_key(model.network, model.scheduler) != known:
        raise InputError(
            f"{place} is not the teacher that {folder} was made from: put that one back, or give the students alone,"
            f" such as {folder}/steps-4"
        )
    return model


def find_teacher(folder: str, place: str) -> str:
    """Where a run's teacher is now: a relative path may have been one beside the run's folder, or in it."""
    places = [Path(place), Path(folder).parent / place, Path(folder, place), Path(folder, Path(place).name)]
    return next((str(path) for path in places if (path / "model_index.json").exists()), place)


def describe_model(config: EvaluationConfig, name: str, model: Model, guidance_scale: float = 1.0) -> Subject:
    """A model with the steps it was distilled for, or else with those that were asked for, by every sampler."""
    if model.num_trained_steps is not None:
        return Subject(name, model.pipeline, [model.num_trained_steps])
    if guidance_scale != 1 and model.pipeline.null_label is None:
        raise InputError(f"--guidance_scale {guidance_scale:g}: {name} has no null class; it must be 1")
    steps = list(map(int, split_words(config.steps)))
    return Subject(name, model.pipeline, steps, split_words(config.samplers), guidance_scale)


def load_frozen(config: EvaluationConfig, name: str, **options: str | None) -> Model:
    """A model that is only sampled; `options` are those of [`ModelSource`] that are not in `config`."""
    common = {"cache_dir": config.cache_dir, "token": config.hub_token, "trust_remote_code": config.trust_remote_code}
    model = open_model(ModelSource(name, **common, **options))
    model.network.requires_grad_(False)
    side = settle(config.resolution, model.family.read_image_size(model)[1], name)
    if side is None:
        raise InputError(f"{name} does not say how large its images are: give --resolution")
    model.family.set_resolution(model, side, name)
    return model
