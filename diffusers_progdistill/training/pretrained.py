"""The teacher that a run is given: loaded, checked, and whether it must be converted before it can be halved."""

from dataclasses import dataclass
from functools import cached_property

from ..data import ImageData
from ..data.classes import TeacherClasses, fit_classes
from ..data.notices import notice
from ..errors import InputError
from ..identity import teacher_key
from ..pipelines.export import with_metadata
from ..pipelines.loading import ModelSource, load_model
from ..pipelines.networks import needs_labels
from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from ..processes.conversion import ConversionTeacher
from .config import ConversionConfig


FLAG = "--pretrained_teacher_model"


@dataclass
class Teacher:
    """
    A teacher as it was given.

    Attributes:
        pipeline ([`ProgressiveDistillationPipeline`]): Its network and its own schedule.
        reasons (`list[str]`): Why it must be converted first; empty if its steps can be halved as they are.
        metadata (`dict`): What its students say of their classes and of guidance.
        guidance_scale (`float`): Of the teacher that the students learn; 1 is none.
    """

    pipeline: ProgressiveDistillationPipeline
    reasons: list[str]
    metadata: dict
    guidance_scale: float

    @property
    def prediction_type(self) -> str:
        return self.pipeline.scheduler.config.prediction_type

    @cached_property
    def key(self) -> str:
        """What it is by its content, wherever it lies."""
        return teacher_key(self.pipeline.unet, self.pipeline.scheduler)

    def as_conversion_teacher(self) -> ConversionTeacher:
        """What the conversion stage learns from."""
        unet = self.pipeline.unet
        return ConversionTeacher(
            lambda z, timestep, labels: unet(z, timestep, labels, return_dict=False)[0],
            self.pipeline.scheduler.schedule,
            self.prediction_type,
            self.guidance_scale,
            self.metadata.get("null_label"),
        )


def load_teacher(config: ConversionConfig) -> ProgressiveDistillationPipeline:
    """
    Load the teacher.

    Raises:
        [`InputError`]: If there is none, it is no `UNet2DModel`, or it can be neither halved nor converted.
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
    pipeline = load_model(source)
    if pipeline.scheduler.has_stochastic_sampler:
        raise InputError(f"{source.what} was made for the stochastic sampler: give the student that it was made from")
    return pipeline


def find_conversion_reasons(config: ConversionConfig, scheduler) -> list[str]:
    """Why the teacher's steps cannot be halved as they are."""
    reasons, kind = [], scheduler.config.prediction_type
    if not scheduler.schedule.is_canonical:
        reasons.append("its noise schedule is not the canonical cosine one")
    if config.prediction_type != kind:
        reasons.append(f"it predicts {kind} and the students {config.prediction_type}")
    if config.guidance_scale != 1:
        reasons.append(f"guidance of scale {config.guidance_scale:g} is folded in")
    if reasons and scheduler.num_trained_steps is not None:
        raise InputError(
            f"{FLAG} was distilled for {scheduler.num_trained_steps} steps and knows no other times, so it cannot be"
            f" converted, but {reasons[0]}: give the model that it was distilled from"
        )
    return reasons


def fit_to_data(config: ConversionConfig, pipeline: ProgressiveDistillationPipeline, data: ImageData) -> Teacher:
    """
    The teacher with its labels checked against the data's.

    Raises:
        [`InputError`]: If it needs labels that the data do not have, or guidance that it cannot give.
    """
    metadata = class_metadata(config, pipeline, data)
    if config.guidance_scale != 1:
        if pipeline.guidance_scale is not None:
            raise InputError(
                f"--guidance_scale {config.guidance_scale:g}: guidance of scale {pipeline.guidance_scale:g} is folded"
                f" into {FLAG} already; it must be 1"
            )
        if "null_label" not in metadata:
            raise InputError(
                f"--guidance_scale {config.guidance_scale:g} needs a class-conditional teacher with a null class"
                " (`train-teacher --label_dropout 0.1`); it must be 1"
            )
        metadata["guidance_scale"] = config.guidance_scale
    reasons = find_conversion_reasons(config, pipeline.scheduler)
    return Teacher(
        with_labels(pipeline, data.known_labels if metadata else None), reasons, metadata, config.guidance_scale
    )


def with_labels(pipeline: ProgressiveDistillationPipeline, labels: list[int] | None):
    """The same model that draws these classes alone, as its students will; all of them if there are no `labels`."""
    if labels is None or labels == pipeline.known_labels:
        return pipeline
    return ProgressiveDistillationPipeline(pipeline.unet, with_metadata(pipeline.scheduler, known_labels=labels))


def class_metadata(config: ConversionConfig, pipeline: ProgressiveDistillationPipeline, data: ImageData) -> dict:
    """
    What a class-conditional model's students know of its classes: their number, names and the null label. The data's
    labels become the teacher's.
    """
    if not needs_labels(pipeline.unet):
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
