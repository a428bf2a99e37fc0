"""The teacher that a run is given: loaded, checked, and whether it must be converted before it can be halved."""

from dataclasses import dataclass
from functools import cached_property

from ..data import ImageData
from ..data.classes import TeacherClasses, fit_classes
from ..data.notices import notice
from ..errors import InputError
from ..families import Model, open_model
from ..identity import teacher_key
from ..pipelines.loading import ModelSource
from .config import ConversionConfig


FLAG = "--pretrained_teacher_model"


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


def load_teacher(config: ConversionConfig) -> Model:
    """
    Load the teacher.

    Raises:
        [`InputError`]: If there is none, no family opens it, or it can be neither distilled nor converted.
    """
    source = ModelSource(
        config.pretrained_teacher_model,
        FLAG,
        cache_dir=config.cache_dir,
        token=config.hub_token,
        revision=config.revision,
        variant=config.variant,
        trust_remote_code=config.trust_remote_code,
    )
    model = open_model(source)
    if model.pipeline.scheduler.has_stochastic_sampler:
        raise InputError(f"{source.what} was made for the stochastic sampler: give the student that it was made from")
    return model


def find_conversion_reasons(config: ConversionConfig, teacher: Model) -> list[str]:
    """Why the teacher cannot be distilled as it is."""
    reasons = teacher.family.find_conversion_reasons(teacher, config.prediction_type, config.guidance_scale)
    if reasons and teacher.num_trained_steps is not None:
        raise InputError(
            f"{FLAG} was distilled for {teacher.num_trained_steps} steps and knows no other times, so it cannot be"
            f" converted, but {reasons[0]}: give the model that it was distilled from"
        )
    return reasons


def fit_to_data(config: ConversionConfig, model: Model, data: ImageData) -> Teacher:
    """
    The teacher with its labels checked against the data's.

    Raises:
        [`InputError`]: If it needs labels that the data do not have, or guidance that it cannot give.
    """
    metadata = class_metadata(config, model, data)
    if config.guidance_scale != 1:
        folded = model.pipeline.guidance_scale
        if folded is not None:
            raise InputError(
                f"--guidance_scale {config.guidance_scale:g}: guidance of scale {folded:g} is folded into {FLAG}"
                " already; it must be 1"
            )
        if "null_label" not in metadata:
            raise InputError(
                f"--guidance_scale {config.guidance_scale:g} needs a class-conditional teacher with a null class"
                " (`train-teacher --label_dropout 0.1`); it must be 1"
            )
        metadata["guidance_scale"] = config.guidance_scale
    reasons = find_conversion_reasons(config, model)
    if metadata and data.known_labels != model.pipeline.known_labels:
        # It draws the classes of the data alone, as its students will, and not the null class.
        known = {k: metadata[k] for k in ("null_label", "num_classes") if k in metadata}
        model = model.family.add_metadata(model, known_labels=data.known_labels, **known)
    return Teacher(model, reasons, metadata, config.guidance_scale)


def class_metadata(config: ConversionConfig, model: Model, data: ImageData) -> dict:
    """
    What a class-conditional model's students know of its classes: their number, names and the null label. The data's
    labels become the teacher's.
    """
    pipeline = model.pipeline
    if not model.denoiser.has_classes:
        return {}
    if data.labels is None:
        raise InputError(f"{FLAG} is class-conditional: name the column of the labels by --class_column")
    count, null_label = pipeline.num_classes, pipeline.null_label
    if null_label is None and config.guidance_scale != 1 and count == data.num_classes + 1:
        count = null_label = data.num_classes
        notice(f"{FLAG}: label {null_label}, which no image has, is taken for the null class")
    labels = pipeline.known_labels
    labels = labels if labels is None else [label for label in labels if label != null_label]
    fit_classes(data, TeacherClasses(labels, pipeline.id2label))
    return describe_classes(data, null_label, count)


def describe_classes(data: ImageData, null_label: int | None, count: int | None = None) -> dict:
    """
    The classes of a data set as metadata of a model.

    Args:
        data ([`ImageData`]): The images with labels.
        null_label (`int`, *optional*): The label that stands for none.
        count (`int`, *optional*): Number of classes of the teacher. Default: of the data.
    """
    names = {"class_names": list(data.class_names)} if data.class_names else {}
    null = {} if null_label is None else {"null_label": null_label}
    known, count = data.known_labels, count or data.num_classes
    some = {"known_labels": known} if known != list(range(count)) else {}
    return {"num_classes": count, **names, **null, **some}
