"""`DiTPipeline`: a transformer on the latents of an `AutoencoderKL`, with classes and a null class.

Its chains run on the teacher's own betas, with the teacher's own prediction type.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel, SchedulerMixin

from ..denoisers.base import Conditioning, Denoiser
from ..denoisers.codec import LatentCodec
from ..errors import InputError
from ..pipelines.export import attach_metadata, make_stock_scheduler, replace_component
from ..pipelines.latent_sampler import LatentSampler
from ..pipelines.loading import load_scheduler, unclip
from ..pipelines.source import ModelSource, find_place
from ..pipelines.weights import load_network
from ..schedulers import ProgressiveDistillationScheduler
from .base import Family, Model
from .stored import TOLERANCE, check_export, check_steps, measure_steps


# What published models call the transformer, which had no class of its own then.
OLD_NAME = "Transformer2DModel"
# One image without guidance, to look at the steps.
CALL = {"class_labels": [0], "guidance_scale": 1.0}
# The classes that each component may have.
COMPONENTS = {"transformer": ("DiTTransformer2DModel", OLD_NAME), "vae": ("AutoencoderKL",)}


class DiTDenoiser(Denoiser):
    """Half of the channels that a DiT of learned variance answers with are that variance."""

    def call_network(
        self, network: torch.nn.Module, inputs: torch.Tensor, time: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        return super().call_network(network, inputs, time, conditioning)[:, : inputs.shape[1]]


class DiTFamily(Family):
    """Students are `DiTPipeline`s with a `DDIMScheduler`. Call them with `guidance_scale=1`."""

    pipeline_classes = ("DiTPipeline",)
    stock_call = "class_labels=[{label}], num_inference_steps={steps}, guidance_scale=1.0"

    def check_index(self, index: dict, what: str) -> None:
        for name, kinds in COMPONENTS.items():
            library, kind = index.get(name) or (None, None)
            if library != "diffusers" or kind not in kinds:
                raise InputError(
                    f"{what} is a DiTPipeline with a {name} of {kind}: it must be {kinds[0]} of diffusers"
                )

    def open(self, source: ModelSource, folder: Path, index: dict) -> Model:
        transformer = load_network(DiTTransformer2DModel, find_place(folder, "transformer"), source, OLD_NAME)
        vae = load_network(AutoencoderKL, find_place(folder, "vae"), source)
        place = find_place(folder, "scheduler", "scheduler_config.json")
        scheduler = unclip(load_scheduler(place, index["scheduler"][1], source.what))
        names = {int(label): name for label, name in (index.get("id2label") or {}).items()}
        return self.wrap(transformer, vae, scheduler, names, folder)

    def wrap(
        self,
        transformer: DiTTransformer2DModel,
        vae: AutoencoderKL,
        scheduler: ProgressiveDistillationScheduler,
        class_names: dict[int, str],
        folder: Path | None,
    ) -> Model:
        """Loaded components as a model."""
        null = transformer.config.num_embeds_ada_norm
        denoiser = DiTDenoiser(
            transformer,
            scheduler.schedule,
            scheduler.config.prediction_type,
            has_classes=True,
            null_conditioning={"class_labels": torch.tensor([null])},
        )
        defaults = {"num_classes": null, "null_label": null}
        if class_names:
            defaults["class_names"] = [class_names.get(k, str(k)) for k in range(null)]
        missing = {k: v for k, v in defaults.items() if k not in scheduler.metadata}
        codec = LatentCodec(vae)
        sampler = LatentSampler(transformer, vae, attach_metadata(scheduler, **missing), denoiser)
        return Model(self, sampler, denoiser, codec, folder)

    def read_image_size(self, model: Model) -> tuple[int, object]:
        return model.codec.vae.config.in_channels, model.network.config.sample_size * model.codec.factor

    def set_resolution(self, model: Model, resolution: int, owner: str) -> None:
        side = model.network.config.sample_size * model.codec.factor
        if resolution != side:
            raise InputError(f"--resolution {resolution} must be {side}, which {owner} was made for")

    def check_options(self, config: Any) -> None:
        if config.stochastic_sampler:
            raise InputError("--stochastic_sampler: DiTPipeline has no such sampler; leave it out")
        if config.clip_loss:
            raise InputError("--clip_loss judges pixels, but a DiT makes latents: leave it out")

    def check_steps(self, teacher: Model, num_steps: int) -> None:
        check_steps(teacher.denoiser.process, num_steps)
        scheduler = make_stock_scheduler(self.build_scheduler(teacher, num_inference_steps=num_steps))
        stock = DiTPipeline(teacher.network, teacher.codec.vae, scheduler)
        error = measure_steps(stock, "transformer", teacher.denoiser, num_steps, **CALL)
        if not error <= TOLERANCE:
            raise InputError(
                f"a student of {num_steps} steps cannot be stored: a DDIMScheduler with the teacher's config steps"
                f" {error:.1e} away from what it would be trained for"
            )

    def choose_prediction_type(self, teacher: Model) -> str:
        return teacher.denoiser.prediction_type

    def find_conversion_reasons(self, teacher: Model, prediction_type: str, guidance_scale: float) -> list[str]:
        if prediction_type != teacher.denoiser.prediction_type:
            kind = teacher.denoiser.prediction_type
            raise InputError(f"--prediction_type {prediction_type} must be {kind}, which the DiT predicts")
        # Guidance is folded in by the first distillation stage.
        return []

    def build_model(self, network: DiTTransformer2DModel, scheduler: SchedulerMixin, teacher: Model) -> Model:
        names = dict(enumerate(scheduler.metadata.get("class_names", [])))
        return self.wrap(network, teacher.codec.vae, scheduler, names, teacher.folder)

    def save_student(self, student: Model, folder: Path) -> None:
        replace_component(student.folder, "transformer", student.network, student.scheduler, folder)
        if student.num_trained_steps is not None:
            check_export(folder, "transformer", student, **CALL)
