"""What the rest of the package asks of a family of pipelines."""

import abc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import SchedulerMixin

from ..denoisers.base import Denoiser
from ..denoisers.codec import Codec
from ..pipelines.export import attach_metadata
from ..pipelines.source import ModelSource


@dataclass
class Model:
    """
    An opened pipeline.

    Attributes:
        family ([`Family`]): The leaf that opened it.
        pipeline ([`ProgressiveDistillationPipeline`] or one with its properties): What samples it.
        denoiser ([`Denoiser`]): Its network on its own process.
        codec ([`Codec`]): What its process adds noise to.
        folder (`Path`, *optional*): Where it lies, with the components that are not trained.
    """

    family: "Family"
    pipeline: object
    denoiser: Denoiser
    codec: Codec
    folder: Path | None = None

    @property
    def network(self) -> torch.nn.Module:
        return self.denoiser.network

    @property
    def scheduler(self) -> SchedulerMixin:
        """Its schedule, prediction type and metadata."""
        return self.pipeline.scheduler

    @property
    def num_trained_steps(self) -> int | None:
        """The number of steps that it was distilled for; `None` if it is no student."""
        return self.pipeline.num_trained_steps

    def freeze(self, device: torch.device | str) -> "Model":
        """The same model on a device, not to be trained."""
        self.pipeline.to(device)
        self.network.requires_grad_(False).eval()
        if self.denoiser.null_conditioning is not None:
            null = {name: value.to(device) for name, value in self.denoiser.null_conditioning.items()}
            self.denoiser = replace(self.denoiser, null_conditioning=null)
        return self


class Family(abc.ABC):
    """
    One family of pipelines. A leaf is a module with a subclass, and a line in `registry.py`.

    Attributes:
        pipeline_classes (`tuple[str, ...]`): Names in `_class_name` of the `model_index.json`s that it opens.
        stock_call (`str`, *optional*): How a model card calls students by stock diffusers, with places for `{label}`
            and `{steps}`; without it they are called as [`ProgressiveDistillationPipeline`] is.
    """

    pipeline_classes: tuple[str, ...] = ()
    stock_call: str | None = None

    @abc.abstractmethod
    def check_index(self, index: dict, what: str) -> None:
        """
        Refuse what a `model_index.json` says before anything else is read or downloaded.

        Raises:
            [`InputError`]: In one line, which calls the model `what`.
        """

    @abc.abstractmethod
    def open(self, source: ModelSource, folder: Path, index: dict) -> Model:
        """
        Load the model in a folder that was checked, whose `model_index.json` is `index`.

        Raises:
            [`InputError`]: If it cannot be used, in one line.
        """

    def check_options(self, config: Any) -> None:  # noqa: B027 - a family may take all
        """
        Refuse options of `progdistill distill` that its students cannot have.

        Raises:
            [`InputError`]: In one line.
        """

    def check_steps(self, teacher: Model, num_steps: int) -> None:  # noqa: B027 - a family may store any number
        """
        Refuse a number of steps whose student could not be stored.

        Raises:
            [`InputError`]: In one line.
        """

    @abc.abstractmethod
    def read_image_size(self, model: Model) -> tuple[int, object]:
        """Channels of the images, and their side as the network's config has it: a number, two, or `None`."""

    @abc.abstractmethod
    def set_resolution(self, model: Model, resolution: int, owner: str) -> None:
        """
        Make a model one of images of this side.

        Raises:
            [`InputError`]: If it cannot be; a message calls the model `owner`.
        """

    @abc.abstractmethod
    def build_model(self, network: torch.nn.Module, scheduler: SchedulerMixin, teacher: Model | None) -> Model:
        """A trained student as a model, which shares with its teacher whatever is not trained."""

    def build_scheduler(self, teacher: Model, **metadata) -> SchedulerMixin:
        """What is stored beside a student of a teacher, with `metadata` (JSON values) under `_progdistill`."""
        # However its teacher is sampled: a student's steps are not clipped, and the last one ends in clean data.
        trained = {"set_alpha_to_one": True, "clip_sample": False, "thresholding": False}
        scheduler = type(teacher.scheduler).from_config(teacher.scheduler.config, **trained)
        return attach_metadata(scheduler, **metadata)

    def add_metadata(self, model: Model, **metadata) -> Model:
        """The same model with more metadata beside its schedule."""
        return self.build_model(model.network, attach_metadata(model.scheduler, **metadata), model)

    @abc.abstractmethod
    def save_student(self, student: Model, folder: Path) -> None:
        """Write a complete pipeline folder that stock diffusers loads and samples, wherever it can."""

    @abc.abstractmethod
    def choose_prediction_type(self, teacher: Model) -> str:
        """What students predict unless a person says otherwise."""

    @abc.abstractmethod
    def find_conversion_reasons(self, teacher: Model, prediction_type: str, guidance_scale: float) -> list[str]:
        """Why the teacher must be converted before it can be distilled; empty if it is distilled as it is."""
