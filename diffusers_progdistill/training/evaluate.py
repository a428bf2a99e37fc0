"""Measure models: a run's teacher and students, or any others, against real images and against each other."""

import copy
from pathlib import Path

from ..data import load_data
from ..data.sizes import settle
from ..disk import writing
from ..errors import InputError
from ..evaluation.figures import Evaluation, EvaluationSettings, Subject
from ..evaluation.metrics import load_metrics
from ..evaluation.pictures import save_curve
from ..evaluation.samplers import OWN, SAMPLERS
from ..evaluation.store import FILE_NAME, format_table, summarize_rows
from ..families import Model, open_model
from ..hub.folder import write_card
from ..identity import teacher_key
from ..paths import settle_path
from ..pipelines.loading import ModelSource
from ..record import RECORD_NAME, TEACHER_KEY, list_students, read_content, with_students
from .isolation import isolated
from .plan import CONVERSION_STAGE
from .setup import make_evaluation_accelerator


DATA_OPTIONS = (
    *("dataset_name", "dataset_config_name", "train_data_dir", "image_column", "class_column", "resolution"),
    *("center_crop", "background_color", "train_split", "follow_links"),
)

# Bytes of decoded real images that are kept in memory; more are read when they are asked for.
IMAGES_IN_MEMORY = 2**28


@isolated()
def evaluate(config, targets: list[str]) -> Path:
    """
    Measure models and write `evaluation.json` and `curve.png`. In the output folder of a run the card is made anew.

    Args:
        config ([`EvaluationConfig`]): All options.
        targets (`list[str]`): Output folders of `distill`, pipeline folders, names on the Hub.

    Returns:
        `Path`: The `evaluation.json`.

    Raises:
        [`InputError`]: For models, data or options that do not fit, before anything is measured.
    """
    # What a run's record says is taken into options of our own.
    config = copy.copy(config)
    targets = [settle_path(target, "DIR") for target in targets]
    samplers = [word.strip() for word in config.samplers.split(",")]
    if unknown := [name for name in samplers if name not in SAMPLERS]:
        raise InputError(f"--samplers {unknown[0]} is not one of {', '.join(SAMPLERS)}")
    steps, seeds = ([int(word) for word in text.split(",")] for text in (config.steps, config.seeds))
    accelerator = make_evaluation_accelerator()
    records = {target: record for target in targets if (record := read_record(target))}
    take_data_of(config, records)
    subjects, reference = open_models(config, targets, records, samplers, steps)
    models = subjects if reference is None else [*subjects, reference[0]]
    check_shapes(models)
    for model in models:
        model.pipeline.to(accelerator.device)
    channels, side, _ = subjects[0].pipeline.image_shape
    data = load_data(config, channels, side, IMAGES_IN_MEMORY)
    own_folder = Path(targets[0]) if len(records) == 1 == len(targets) else None
    folder = Path(config.output_dir or own_folder or "evaluation")
    metrics = load_metrics(config, config.num_images, data, accelerator)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    settings = EvaluationSettings(config.num_images, tuple(seeds), config.eval_batch_size, config.cache_dir)
    rows = Evaluation(folder, accelerator, metrics, settings, reference).run(subjects)
    if accelerator.is_main_process:
        summaries = summarize_rows(rows)
        print(format_table(summaries))
        save_curve(summaries, folder)
        if own_folder is not None and folder == own_folder:
            write_card(folder, with_students(folder, records[targets[0]]))
        print(f"figures and curve are in {folder}")
    accelerator.wait_for_everyone()
    return folder / FILE_NAME


def check_shapes(models: list[Subject]):
    """All are measured with the same real images."""
    shapes = {model.name: tuple(model.pipeline.image_shape) for model in models}
    first = models[0].name
    for name, shape in shapes.items():
        if shape != shapes[first]:
            shown = ["x".join(map(str, s)) for s in (shape, shapes[first])]
            raise InputError(f"{name} makes images of {shown[0]} and {first} of {shown[1]}: measure them apart")


def read_record(target: str) -> dict | None:
    """The record of a run with students, or `None` for what is a model itself."""
    path = Path(target) / RECORD_NAME
    if not path.exists() or (Path(target) / "model_index.json").exists():
        return None
    try:
        content = read_content(path)
    except ValueError as error:
        raise InputError(str(error)) from error
    if not list_students(with_students(Path(target), content)):
        raise InputError(f"{target} holds no finished student: give the OUTPUT_DIR of `progdistill distill`")
    return content


def take_data_of(config, records: dict[str, dict]):
    """Measure with the images of the run unless others are named."""
    if config.dataset_name is None and config.train_data_dir is None:
        if not records:
            raise InputError("give the real images by --dataset_name or --train_data_dir")
        settings = next(iter(records.values()))["settings"]
        for name in DATA_OPTIONS:
            # What was typed stays: the classifier wants labels even where the run did not.
            if name in settings and getattr(config, name) == getattr(type(config), name):
                setattr(config, name, settings[name])


def open_models(config, targets: list[str], records: dict[str, dict], samplers: list[str], steps: list[int]):
    """What is measured, and whose images the others are compared with: the teacher of a run, or the one named."""
    subjects, teachers = [], []
    for target in targets:
        if target in records:
            teacher, made = run_subjects(target, records[target], samplers, steps, config)
            teachers.append(teacher)
            if len(records) > 1:
                for subject in (teacher, *made):
                    subject.name = f"{Path(target).name}/{subject.name}"
            subjects += [teacher, *made]
        else:
            model = load_frozen(target, config, variant=config.variant)
            subjects.append(make_subject(target, model, samplers, steps, config.guidance_scale))
    names = [subject.name for subject in subjects]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{doubled[0]} would be measured twice: give each model once")
    named = config.pretrained_teacher_model
    if named is not None:
        model = load_frozen(named, config, variant=config.variant)
        teachers = [make_subject(named, model, [OWN], [], config.guidance_scale)]
    different = {teacher.weights for teacher in teachers}
    if len(different) > 1:
        print("no agreement with a teacher is measured: there are several (--pretrained_teacher_model names one)")
    if len(different) != 1:
        return subjects, None
    teacher = teachers[0]
    return subjects, (teacher, teacher.pipeline.num_trained_steps or config.reference_steps)


def run_subjects(folder: str, record: dict, samplers, steps, config) -> tuple[Subject, list[Subject]]:
    """The teacher of a run, with the guidance that its students have folded in, and what was made of it."""
    made, model = [], teacher_of_run(folder, record["settings"], config)
    labels = known_labels_of(record)
    if labels is not None and labels != model.pipeline.known_labels:
        # It draws the classes that its students know.
        model = model.family.add_metadata(model, known_labels=labels)
    teacher = make_subject("teacher", model, samplers, steps, record["about"].get("guidance_scale", 1.0))
    for stage in with_students(Path(folder), record)["stages"]:
        name = "converted" if stage["name"] == CONVERSION_STAGE else stage["name"]
        made.append(make_subject(name, load_frozen(str(Path(folder, stage["name"])), config), samplers, steps))
    return teacher, made


def known_labels_of(record: dict) -> list[int] | None:
    """The labels that the students of a run were trained with."""
    model = record["about"]["model"]
    return model.get("known_labels") or (list(range(model["num_classes"])) if model.get("num_classes") else None)


def teacher_of_run(folder: str, settings: dict, config) -> Model:
    """
    The teacher that a run was made from, of which its record says what it was.

    Raises:
        [`InputError`]: If there is none where it was, or another.
    """
    place = teacher_place(folder, settings["pretrained_teacher_model"])
    model = load_frozen(place, config, revision=settings.get("revision"), variant=settings.get("variant"))
    known = settings.get(TEACHER_KEY)
    if known is not None and teacher_key(model.network, model.scheduler) != known:
        raise InputError(
            f"{place} is not the teacher that {folder} was made from: put that one back, or give the students alone,"
            f" such as {folder}/steps-4"
        )
    return model


def teacher_place(folder: str, place: str) -> str:
    """Where a run's teacher is now: a relative path may have been one beside the run's folder, or in it."""
    for base in (Path(), Path(folder).parent, Path(folder)):
        if (base / place / "model_index.json").exists():
            return str(base / place)
    inside = Path(folder, Path(place).name)
    return str(inside) if (inside / "model_index.json").exists() else place


def make_subject(name: str, model: Model, samplers, steps, guidance_scale: float = 1.0) -> Subject:
    """A model with the steps it was distilled for, or else with those that were asked for, by every sampler."""
    if model.num_trained_steps is not None:
        return Subject(name, model.pipeline, [model.num_trained_steps])
    if guidance_scale != 1 and model.pipeline.null_label is None:
        raise InputError(f"--guidance_scale {guidance_scale:g}: {name} has no null class; it must be 1")
    return Subject(name, model.pipeline, steps, samplers, guidance_scale)


def load_frozen(name: str, config, **teacher) -> Model:
    """A model that is only sampled; `teacher` is what a record says of the one it was made from."""
    source = ModelSource(
        name,
        "model",
        cache_dir=config.cache_dir,
        token=config.hub_token,
        trust_remote_code=config.trust_remote_code,
        **teacher,
    )
    model = open_model(source)
    model.network.requires_grad_(False)
    side = settle(config.resolution, model.family.read_image_size(model)[1], name)
    if side is None:
        raise InputError(f"{name} does not say how large its images are: give --resolution")
    model.family.set_resolution(model, side, name)
    return model
