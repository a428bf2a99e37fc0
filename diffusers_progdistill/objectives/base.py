"""What every objective is: the examples of a batch, and the losses of a network on them."""

import abc
import copy
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from diffusers.training_utils import EMAModel

from ..denoisers.base import Conditioning, Denoiser
from ..processes.base import NoiseLevel
from .stage import Stage


@dataclass
class Batch:
    """
    One process's micro-batch.

    Attributes:
        data (`torch.Tensor` of shape `(batch_size, ...)`): x, what the process adds noise to: pixels in [-1, 1], or
            latents.
        conditioning (`Conditioning`): Rows by sample.
        uniform (`torch.Tensor` of shape `(batch_size,)`): Numbers in [0, 1) that the noise levels are made of.
        noise (`torch.Tensor`): eps, of the shape of the data.
    """

    data: torch.Tensor
    conditioning: Conditioning
    uniform: torch.Tensor
    noise: torch.Tensor


@dataclass
class Examples:
    """
    What a network is to learn from a batch.

    Attributes:
        z (`torch.Tensor` of shape `(batch_size, ...)`): Noisy samples.
        angle, time (`torch.Tensor` of shape `(batch_size,)`): Their noise level.
        target (`torch.Tensor`): The x that the network is to predict, of the shape of z.
        conditioning (`Conditioning`): Rows by sample.
        is_last (`torch.Tensor` of shape `(batch_size,)`): Whether the student's step from here is its last, which ends
            in the finished image.
    """

    z: torch.Tensor
    angle: torch.Tensor
    time: torch.Tensor
    target: torch.Tensor
    is_last: torch.Tensor
    conditioning: Conditioning

    @property
    def level(self) -> NoiseLevel:
        return NoiseLevel(self.angle, self.time)

    @classmethod
    def stack(cls, examples: list["Examples"]) -> "Examples":
        """The examples of several batches, with one dimension more, in front."""
        tensors = [f.name for f in fields(cls) if f.name != "conditioning"]
        conditioning = {
            name: torch.stack([e.conditioning[name] for e in examples]) for name in examples[0].conditioning
        }
        stacked = {name: torch.stack([getattr(e, name) for e in examples]) for name in tensors}
        return cls(**stacked, conditioning=conditioning)

    def select(self, batches: torch.Tensor, rows: torch.Tensor) -> "Examples":
        """Of stacked examples, one batch made of row `rows[k]` of batch `batches[k]`."""
        tensors = {f.name: getattr(self, f.name)[batches, rows] for f in fields(self) if f.name != "conditioning"}
        conditioning = {name: values[batches, rows] for name, values in self.conditioning.items()}
        return Examples(**tensors, conditioning=conditioning)


class Objective(abc.ABC):
    """
    What a student learns, in two parts: the examples of a batch, which may need a teacher but not the network that is
    trained, and that network's losses on them.

    Args:
        student ([`Denoiser`]): What is trained.
        weighting (`str`): Of the error of x as a function of the noise level, one of `WEIGHTINGS`.

    Attributes:
        loss_names (`tuple[str, ...]`): What [`compute_losses`] returns.
        networks (`dict[str, torch.nn.Module]`): Networks beside the student that change while it is trained. The loop
            moves, checkpoints and resumes them by name, and knows nothing else of them. It puts a network that has an
            optimizer back as accelerate wraps it, so call it by its place in here.
        optimizers (`dict[str, torch.optim.Optimizer]`): Of networks that are trained, by their names. They step with
            the student's, on the gradient of the sum of all losses.
        averages (`dict[str, EMAModel]`): Of such networks, moved by [`after_update`]. They are checkpointed too.
    """

    loss_names: tuple[str, ...] = ("loss",)

    def __init__(self, student: Denoiser, weighting: str) -> None:
        self.student, self.weighting = student, weighting
        self.networks: dict[str, torch.nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.averages: dict[str, EMAModel] = {}

    @abc.abstractmethod
    def make_examples(self, batch: Batch, update: int = 0) -> Examples:
        """
        Noisy samples and their targets; nothing in them needs a gradient.

        Args:
            batch ([`Batch`]): A micro-batch.
            update (`int`): The number of the batch, counted from 0: that of the update, where each has fresh examples.
        """

    @abc.abstractmethod
    def compute_losses(self, network: torch.nn.Module, examples: Examples) -> dict[str, torch.Tensor]:
        """
        Losses by name, whose sum is minimised.

        Args:
            network (`torch.nn.Module`): The student's network as the loop has wrapped it.
            examples ([`Examples`]): What it is to learn.
        """

    def with_network(self, network: torch.nn.Module) -> "Objective":
        """The same objective for another network of the student."""
        other = copy.copy(self)
        other.student = replace(self.student, network=network)
        return other

    def after_update(self, update: int) -> None:  # noqa: B027 - most objectives do nothing here
        """Called when the student's optimizer has made update number `update`, counted from 1."""


class TeacherObjective(Objective):
    """An objective of a stage that has a teacher. A leaf is a file with a subclass, and a line in `registry.py`."""

    @classmethod
    @abc.abstractmethod
    def build(cls, student: Denoiser, teacher: Denoiser, stage: Stage, config: Any) -> "TeacherObjective":
        """
        The objective of a stage.

        Args:
            student ([`Denoiser`]): What is trained, a copy of the teacher.
            teacher ([`Denoiser`]): What it learns from.
            stage ([`Stage`]): Its steps and updates.
            config ([`DistillationConfig`]): The options.
        """

    @staticmethod
    @abc.abstractmethod
    def count_example_passes(factor: int, evaluations: int) -> int:
        """
        Forward passes that the examples of a batch cost, beside the student's own.

        Args:
            factor (`int`): Steps of the teacher that a step of the student replaces.
            evaluations (`int`): Of the teacher's network in a step: 2 with guidance, else 1.
        """
