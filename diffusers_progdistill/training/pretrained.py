"""The teacher that a run is given: loaded, checked, and whether it must be adopted before it can be halved."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import diffusers

from ..data import ImageData
from ..data.classes import TeacherClasses, fit_classes
from ..data.notices import notice
from ..diffusion.adoption import ForeignTeacher
from ..errors import InputError
from ..pipelines.export import with_metadata
from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from ..schedulers import ProgressiveDistillationScheduler
from ..trust import check_teacher_files
from .config import AdoptionConfig
from .network import needs_labels, without_learned_variance


logger = logging.getLogger(__name__)

FLAG = "--pretrained_teacher_model"


@dataclass
class Teacher:
    """
    A teacher as it was given.

    Attributes:
        pipeline ([`ProgressiveDistillationPipeline`]): Its network and its own schedule.
        reasons (`list[str]`): Why it must be adopted first; empty if its steps can be halved as they are.
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

    def as_foreign(self) -> ForeignTeacher:
        """What the adopt stage learns from."""
        unet = self.pipeline.unet
        return ForeignTeacher(
            lambda z, timestep, labels: unet(z, timestep, labels, return_dict=False)[0],
            self.pipeline.scheduler.schedule,
            self.prediction_type,
            self.guidance_scale,
            self.metadata.get("null_label"),
        )


def load_pipeline(
    name: str, flag: str, cache_dir=None, token=None, revision=None, variant=None, trust_remote_code: bool = False
) -> ProgressiveDistillationPipeline:
    """
    A model from a folder or the Hub, without running anything that comes with it.

    Args:
        name (`str`): A diffusers pipeline folder, or a name on the Hub.
        flag (`str`): What a message calls it.
        cache_dir, token, revision, variant, trust_remote_code (*optional*): As [`~DiffusionPipeline.from_pretrained`].

    Raises:
        [`InputError`]: If there is none, it cannot be trusted, or it is no `UNet2DModel`.
    """
    if not os.path.isdir(name) and (os.path.isabs(name) or name.startswith(".") or name.count("/") != 1):
        raise InputError(f"{flag} {name} is not a folder: give a diffusers pipeline folder")
    if os.path.isdir(name) and not os.path.exists(os.path.join(name, "model_index.json")):
        raise InputError(f"{flag} {name} has no model_index.json: give a diffusers pipeline folder")
    options = {"variant": variant, "trust_remote_code": trust_remote_code}
    try:
        folder = name
        if not os.path.isdir(name):
            where = {"revision": revision, "cache_dir": cache_dir, "token": token}
            folder = ProgressiveDistillationPipeline.download(name, **where, **options)
        check_teacher_files(Path(folder), trust_remote_code)
        pipeline = ProgressiveDistillationPipeline.from_pretrained(folder, **options)
        if not isinstance(pipeline, ProgressiveDistillationPipeline):
            # A trusted folder's own class; what is used is its network on its schedule.
            pipeline = ProgressiveDistillationPipeline(pipeline.unet, pipeline.scheduler)
    except InputError:
        raise
    except Exception as error:  # diffusers and the Hub client raise many kinds for what is one thing to a user
        reason = str(error).split("\n")[0][:200]
        raise InputError(f"{flag} {name} cannot be loaded as a pipeline: {reason}") from error
    if not isinstance(pipeline.unet, diffusers.UNet2DModel):
        raise InputError(f"{flag} {name} has a {type(pipeline.unet).__name__}: it must be a UNet2DModel")
    return pipeline


def load_teacher(config: AdoptionConfig) -> ProgressiveDistillationPipeline:
    """
    Load the teacher, and settle what its students predict.

    Raises:
        [`InputError`]: If there is none, it is no `UNet2DModel`, or it can be neither halved nor adopted.
    """
    name, where = config.pretrained_teacher_model, (config.cache_dir, config.hub_token)
    pipeline = load_pipeline(name, FLAG, *where, config.revision, config.variant, config.trust_remote_code)
    if pipeline.scheduler.has_stochastic_sampler:
        raise InputError(f"{FLAG} {name} was made for the stochastic sampler: give the student that it was made from")
    kind = pipeline.scheduler.config.prediction_type
    unet = without_learned_variance(pipeline.unet, kind)
    check_network(unet, FLAG, kind)
    settle_types(config, pipeline.scheduler)
    return ProgressiveDistillationPipeline(unet, unclipped(pipeline.scheduler))


def unclipped(scheduler: ProgressiveDistillationScheduler) -> ProgressiveDistillationScheduler:
    """
    A foreign schedule as the teacher is best sampled on it. Stock configs ask to clip x in every step, which makes
    many steps worse than few, and would flatter the students.
    """
    if scheduler.schedule.is_canonical:
        return scheduler
    return ProgressiveDistillationScheduler.from_config(scheduler.config, clip_sample=False, thresholding=False)


def check_network(unet, flag: str, prediction_type: str):
    """Refuse networks that cannot be asked at continuous timesteps, or whose output or labels are of another kind."""
    config = unet.config
    if config.time_embedding_type != "positional":
        raise InputError(
            f"{flag}: time_embedding_type {config.time_embedding_type!r} does not work at the timesteps of"
            " continuous time; it must be 'positional'"
        )
    heads = 2 if prediction_type == "sample_epsilon" else 1
    if config.out_channels != heads * config.in_channels:
        raise InputError(
            f"{flag}: out_channels {config.out_channels} must be {heads * config.in_channels} for in_channels"
            f" {config.in_channels} and prediction type {prediction_type}"
        )
    if config.class_embed_type == "identity":
        raise InputError(
            f"{flag}: class_embed_type 'identity' takes embeddings, not labels: it must be null or 'timestep'"
        )


def settle_types(config: AdoptionConfig, scheduler):
    """What the students predict and how errors are weighted, where the options leave it open."""
    kind, schedule = scheduler.config.prediction_type, scheduler.schedule
    if kind == "epsilon" and schedule.has_zero_terminal_snr:
        raise InputError(
            f"{FLAG} predicts epsilon on a schedule with zero terminal SNR, where epsilon says nothing about the"
            " image: give a teacher of another prediction type or schedule"
        )
    own = kind if schedule.is_canonical and kind != "epsilon" else "v_prediction"
    config.prediction_type = config.prediction_type or own
    if config.prediction_type == "epsilon":
        logger.warning("epsilon says nothing about the image at pure noise: expect bad students of very few steps")
    default = "snr" if config.prediction_type == "epsilon" else "truncated_snr"
    config.weighting = config.weighting or default


def reasons_to_adopt(config: AdoptionConfig, scheduler) -> list[str]:
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
            f" adopted, but {reasons[0]}: give the model that it was distilled from"
        )
    return reasons


def fit_to_data(config: AdoptionConfig, pipeline: ProgressiveDistillationPipeline, data: ImageData) -> Teacher:
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
    reasons = reasons_to_adopt(config, pipeline.scheduler)
    return Teacher(with_labels(pipeline, metadata.get("known_labels")), reasons, metadata, config.guidance_scale)


def with_labels(pipeline: ProgressiveDistillationPipeline, labels: list[int] | None):
    """The same model that draws these classes alone, as its students will; all of them if there are no `labels`."""
    if labels is None or labels == pipeline.known_labels:
        return pipeline
    return ProgressiveDistillationPipeline(pipeline.unet, with_metadata(pipeline.scheduler, known_labels=labels))


def class_metadata(config: AdoptionConfig, pipeline: ProgressiveDistillationPipeline, data: ImageData) -> dict:
    """
    What a class-conditional model's students know of its classes: their number, names and the null label. The data's
    labels become the teacher's.
    """
    if not needs_labels(pipeline.unet):
        return {}
    if data.labels is None:
        raise InputError(f"{FLAG} is class-conditional: name the column of the labels by --class_column")
    embeddings, null_label = pipeline.unet.config.num_class_embeds, pipeline.null_label
    if null_label is None and config.guidance_scale != 1 and embeddings == data.num_classes + 1:
        null_label = data.num_classes
        notice(f"{FLAG}: label {null_label}, which no image has, is taken for the null class")
    labels = pipeline.known_labels
    labels = labels if labels is None else [label for label in labels if label != null_label]
    fit_classes(data, TeacherClasses(labels, pipeline.id2label))
    return describe_classes(data, null_label)


def describe_classes(data: ImageData, null_label: int | None) -> dict:
    """
    The classes of a data set as metadata of a model.

    Args:
        data ([`ImageData`]): The images with labels.
        null_label (`int`, *optional*): The label that stands for none.
    """
    names = {"class_names": list(data.class_names)} if data.class_names else {}
    null = {} if null_label is None else {"null_label": null_label}
    known = data.known_labels
    some = {"known_labels": known} if known != list(range(data.num_classes)) else {}
    return {"num_classes": data.num_classes, **names, **null, **some}
