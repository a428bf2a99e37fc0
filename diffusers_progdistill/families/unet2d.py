"""Pixel pipelines of a `UNet2DModel`: DDPM, DDIM and class-conditional ones."""

import logging
from pathlib import Path

from diffusers import SchedulerMixin, UNet2DModel

from ..data.sizes import check_levels
from ..denoisers.base import Denoiser
from ..denoisers.codec import PixelCodec
from ..denoisers.heads import change_output
from ..pipelines.export import save_pipeline
from ..pipelines.loading import check_components, load_pipeline
from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from ..pipelines.source import ModelSource
from ..schedulers import ProgressiveDistillationScheduler
from .base import Family, Model


logger = logging.getLogger(__name__)


class UNet2DFamily(Family):
    """Its chains run on the canonical cosine process. A teacher on another one is converted first."""

    pipeline_classes = (
        *("ProgressiveDistillationPipeline", "DDPMPipeline", "DDIMPipeline", "PNDMPipeline"),
        *("ConsistencyModelPipeline", "ScoreSdeVePipeline", "KarrasVePipeline"),
    )

    def check_index(self, index: dict, what: str) -> None:
        check_components(index, what)

    def open(self, source: ModelSource, folder: Path, index: dict) -> Model:
        return self.wrap(load_pipeline(source, folder, index))

    def wrap(self, pipeline: ProgressiveDistillationPipeline) -> Model:
        """A loaded pipeline as a model."""
        return Model(self, pipeline, pipeline.denoiser, PixelCodec())

    def read_image_size(self, model: Model) -> tuple[int, object]:
        return model.network.config.in_channels, model.network.config.sample_size

    def set_resolution(self, model: Model, resolution: int, owner: str) -> None:
        check_levels(resolution, model.network.config, owner)
        model.network.register_to_config(sample_size=resolution)

    def build_model(self, network: UNet2DModel, scheduler: SchedulerMixin, teacher: Model | None) -> Model:
        return self.wrap(ProgressiveDistillationPipeline(network, scheduler))

    def save_student(self, student: Model, folder: Path) -> None:
        save_pipeline(student.network, student.scheduler, folder)

    def choose_prediction_type(self, teacher: Model) -> str:
        kind = teacher.denoiser.prediction_type
        return kind if teacher.denoiser.process.is_canonical and kind != "epsilon" else "v_prediction"

    def find_conversion_reasons(self, teacher: Model, prediction_type: str, guidance_scale: float) -> list[str]:
        reasons, kind = [], teacher.denoiser.prediction_type
        if prediction_type == "epsilon":
            logger.warning("epsilon says nothing about the image at pure noise: expect bad students of very few steps")
        if not teacher.denoiser.process.is_canonical:
            reasons.append("its noise schedule is not the canonical cosine one")
        if prediction_type != kind:
            reasons.append(f"it predicts {kind} and the students {prediction_type}")
        if guidance_scale != 1:
            reasons.append(f"guidance of scale {guidance_scale:g} is folded in")
        return reasons


def make_converted_student(teacher: Denoiser, scheduler: ProgressiveDistillationScheduler) -> Denoiser:
    """
    What a conversion starts from: the teacher's weights, all of them, with the heads of the student's prediction type,
    on the process of the student's scheduler.

    A fresh output convolution learns more slowly, and fitting the time embedding to our timesteps first gains nothing
    that a few hundred updates do not (docs/convert.md).
    """
    kind, network = scheduler.config.prediction_type, teacher.make_student().network
    channels = network.config.in_channels
    keep = [(k, 1.0) for k in range(channels)]
    if teacher.prediction_type != kind == "sample_epsilon":
        network = change_output(network, keep + keep)
    elif teacher.prediction_type == "sample_epsilon" != kind:
        network = change_output(network, [(k + channels * (kind == "epsilon"), 1.0) for k in range(channels)])
    return Denoiser(network.requires_grad_(True), scheduler.schedule, kind, has_classes=teacher.has_classes)
