"""A run: what its options name, loaded and checked, and what it may go on with."""

import dataclasses
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from accelerate import Accelerator

from ..data import ImageData, load_data
from ..data.classes import TeacherClasses, fit_classes
from ..data.notices import notice
from ..data.sizes import settle
from ..denoisers.codec import Codec, PixelCodec
from ..errors import InputError
from ..families import Model, open_model
from ..identity import teacher_key
from ..pipelines.loading import ModelSource
from ..record import TEACHER_KEY, Record
from .config import TEACHER_FLAG, ConversionConfig, DistillationConfig, TrainingConfig
from .launcher import make_accelerator, print_hardware
from .recipes import list_changes, resolve


@dataclass
class Teacher:
    """
    A teacher as it was given.

    Attributes:
        model ([`Model`]): Its network on its own process.
        reasons (`list[str]`): Why it must be converted first; empty if it is distilled as it is.
        metadata (`dict`): What its students say of their classes and of guidance.
        guidance_scale (`float`): Of the teacher that the students learn; 1 is none.
    """

    model: Model
    reasons: list[str]
    metadata: dict
    guidance_scale: float

    @property
    def is_student(self) -> bool:
        """Whether it was distilled for a number of steps, which are taken as they are."""
        return self.model.num_trained_steps is not None

    @cached_property
    def key(self) -> str:
        """What it is by its content, wherever it lies."""
        return teacher_key(self.model.network, self.model.scheduler)


@dataclass
class Run:
    """What the options of a run name, loaded and checked. A teacher that is trained from nothing has no teacher."""

    config: TrainingConfig
    accelerator: Accelerator
    data: ImageData
    global_batch: int
    teacher: Teacher | None = None
    codec: Codec = field(default_factory=PixelCodec)

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def settings(self) -> dict:
        """What the weights depend on."""
        settings = self.config.weight_settings()
        settings |= {"num_images": len(self.data), "global_batch_size": self.global_batch}
        if self.teacher is not None:
            settings[TEACHER_KEY] = self.teacher.key
            if not self.teacher.reasons:
                del settings["conversion_updates"]
        return settings


def open_accelerator(config: TrainingConfig) -> Accelerator:
    """The accelerator of a run, with its tracker in the output folder unless nothing is to be written; says so."""
    accelerator = make_accelerator(config, None if config.dry_run else Path(config.output_dir) / config.logging_dir)
    print_hardware(accelerator)
    return accelerator


def open_run(config: ConversionConfig) -> Run:
    """Load the teacher and the images, and refuse what does not fit together. The run has options of its own."""
    config = dataclasses.replace(config)
    config.check()
    accelerator = open_accelerator(config)
    source = ModelSource(
        config.pretrained_teacher_model,
        TEACHER_FLAG,
        cache_dir=config.cache_dir,
        token=config.hub_token,
        revision=config.revision,
        variant=config.variant,
        trust_remote_code=config.trust_remote_code,
    )
    model = open_model(source)
    if model.pipeline.scheduler.has_stochastic_sampler:
        raise InputError(f"{source.what} was made for the stochastic sampler: give the student that it was made from")
    config = resolve(config, accelerator, model)
    channels, side = model.family.read_image_size(model)
    data = load_data(config, channels, settle(config.resolution, side, source.what))
    # What is trained on is what the students, which are made of this network, sample.
    model.family.set_resolution(model, data.resolution, source.what)
    teacher = fit_to_data(config, model, data)
    teacher.model.freeze(accelerator.device)
    batch = check_batch(config, len(data), accelerator)
    return Run(config, accelerator, data, batch, teacher, teacher.model.codec)


def fit_to_data(config: ConversionConfig, model: Model, data: ImageData) -> Teacher:
    """The teacher, with its labels and its guidance checked; the data's labels become its own."""
    metadata = fit_labels(config, model, data)
    if config.guidance_scale != 1:
        folded = model.pipeline.guidance_scale
        if folded is not None:
            raise InputError(
                f"--guidance_scale {config.guidance_scale:g}: guidance of scale {folded:g} is folded into"
                f" {TEACHER_FLAG} already; it must be 1"
            )
        if "null_label" not in metadata:
            raise InputError(
                f"--guidance_scale {config.guidance_scale:g} needs a class-conditional teacher with a null class"
                " (`train-teacher --label_dropout 0.1`); it must be 1"
            )
        metadata["guidance_scale"] = config.guidance_scale
    reasons = model.family.find_conversion_reasons(model, config.prediction_type, config.guidance_scale)
    if reasons and model.num_trained_steps is not None:
        raise InputError(
            f"{TEACHER_FLAG} was distilled for {model.num_trained_steps} steps and knows no other times, so it cannot"
            f" be converted, but {reasons[0]}: give the model that it was distilled from"
        )
    if metadata and data.known_labels != model.pipeline.known_labels:
        # It draws the classes of the data alone, as its students will, and not the null class.
        known = {k: metadata[k] for k in ("null_label", "num_classes") if k in metadata}
        model = model.family.add_metadata(model, known_labels=data.known_labels, **known)
    return Teacher(model, reasons, metadata, config.guidance_scale)


def fit_labels(config: ConversionConfig, model: Model, data: ImageData) -> dict:
    """Make the data's labels the teacher's; what its students know of its classes, if it has any."""
    pipeline = model.pipeline
    if not model.denoiser.has_classes:
        return {}
    if data.labels is None:
        raise InputError(f"{TEACHER_FLAG} is class-conditional: name the column of the labels by --class_column")
    count, null_label = pipeline.num_classes, pipeline.null_label
    if null_label is None and config.guidance_scale != 1 and count == data.num_classes + 1:
        count = null_label = data.num_classes
        notice(f"{TEACHER_FLAG}: label {null_label}, which no image has, is taken for the null class")
    labels = pipeline.known_labels
    labels = labels if labels is None else [label for label in labels if label != null_label]
    fit_classes(data, TeacherClasses(labels, pipeline.id2label))
    return describe_classes(data, null_label, count)


def describe_classes(data: ImageData, null_label: int | None, count: int | None = None) -> dict:
    """The classes of a data set, of a teacher of `count` classes if there is one, as metadata of a model."""
    names = {"class_names": list(data.class_names)} if data.class_names else {}
    null = {} if null_label is None else {"null_label": null_label}
    known, count = data.known_labels, count or data.num_classes
    some = {"known_labels": known} if known != list(range(count)) else {}
    return {"num_classes": count, **names, **null, **some}


def check_batch(config: TrainingConfig, num_images: int, accelerator: Accelerator) -> int:
    """The global batch size, which must fit into the data set once."""
    global_batch = config.train_batch_size * accelerator.gradient_accumulation_steps * accelerator.num_processes
    if global_batch > num_images:
        raise InputError(
            f"--train_batch_size {config.train_batch_size} makes batches of {global_batch}, but the data set has"
            f" {num_images} images: it must be at most that"
        )
    return global_batch


def check_resume(config: TrainingConfig, record: Record) -> None:
    """Refuse the name of a checkpoint that is not there (that of a finished stage is no longer needed)."""
    wanted = config.resume_from_checkpoint
    folder = record.folder / "checkpoints"
    is_over = record.finished or record.stage(Path(wanted).name.rpartition("-")[0]) is not None
    if wanted != "latest" and not is_over and not (folder / Path(wanted).name).is_dir():
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        raise InputError(
            f"--resume_from_checkpoint {wanted} is not in {folder}: it must be latest"
            + (f" or one of {', '.join(names)}" if names else "")
        )


def check_classes(record: Record, metadata: dict) -> None:
    """Refuse to go on with a run whose classes had other labels, as when a class folder was renamed."""
    begun = record.content.get("about", {}).get("model")
    if begun is None:
        return
    names, labels = ([begun.get(key), metadata.get(key)] for key in ("class_names", "known_labels"))
    if names[0] != names[1] or labels[0] != labels[1]:
        odd = [f"{a} -> {b}" for a, b in zip(*(side or [] for side in names)) if a != b]
        odd = odd or [f"{labels[0]} -> {labels[1]}"]
        raise InputError(
            f"--output_dir {record.folder} holds a run whose labels stand for other classes ({', '.join(odd[:3])}):"
            " give a new folder"
        )


def describe_run(config: DistillationConfig, teacher: Teacher, data: ImageData) -> dict:
    """What the model card says of the run: names only of what is on the Hub, never a path."""
    teacher_name = config.pretrained_teacher_model
    is_local = config.train_data_dir is not None or os.path.exists(config.dataset_name or "")
    source = "digits" if config.dataset_name == "digits" else "local" if is_local else "hub"
    about = {
        "teacher": name_source("local" if os.path.isdir(teacher_name) else "hub", teacher_name),
        "data": name_source(source, config.dataset_name) | ({"skipped": data.num_skipped} if data.num_skipped else {}),
        "model": {
            "parameters": sum(p.numel() for p in teacher.model.network.parameters()),
            "resolution": data.resolution,
            "channels": data.channels,
            "num_classes": teacher.metadata.get("num_classes"),
            **{k: teacher.metadata[k] for k in ("class_names", "known_labels") if k in teacher.metadata},
        },
        "recipe": config.recipe,
    }
    if teacher.model.family.stock_call is not None:
        about["model"]["stock_call"] = teacher.model.family.stock_call
    if teacher.reasons:
        about["converted"] = teacher.reasons
    if teacher.guidance_scale != 1:
        about["guidance_scale"] = teacher.guidance_scale
    if changes := list_changes(config):
        about["recipe_changes"] = changes
    return about


def name_source(source: str, name: str) -> dict:
    """Where something comes from; its name if that is public."""
    return {"source": source, "name": name} if source == "hub" else {"source": source}
