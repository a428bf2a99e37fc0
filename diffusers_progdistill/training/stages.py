"""What a stage optimises: its updates and its loss. Base training, conversion and distillation differ here only."""

import abc
from dataclasses import dataclass

import torch

from ..processes.betas import add_noise, cosine_angle, time_to_timestep
from ..processes.clipping import hidden_error, output_slope
from ..processes.conversion import ConversionTeacher
from ..processes.prediction import from_sample, to_sample
from ..processes.targets import TargetGrid, teacher_target
from ..processes.weighting import loss_weight, pseudo_huber_loss, weighted_loss
from ..seeds import derive_seed


# Share of the SNR + 1 weight that converting from epsilon keeps where SNR vanishes (see docs/convert.md).
NOISY_END_WEIGHT = 0.02


@dataclass
class Stage:
    """
    One stage of a run.

    Attributes:
        name (`str`): Its folder, `"teacher"` or `"steps-N"`.
        number (`int`): Enters the seeds of its order and noise: N, or 0 for a teacher.
        updates (`int`): Optimizer steps.
        passes_per_update (`float`): Cost in forward passes of the network: 3 for base training, 5 for a halving, 4 for
            converting a teacher (5 with guidance).
        factor (`int`): Steps of the teacher that a step of the student replaces.
        reuse (`int`): Updates that each target of the teacher serves.
        midpoint (`bool`): Whether the teacher's steps are taken in pairs, by the midpoint rule.
    """

    name: str
    number: int
    updates: int
    passes_per_update: float
    factor: int = 2
    reuse: int = 1
    midpoint: bool = False

    @property
    def is_distillation(self) -> bool:
        return self.number > 0

    @property
    def kind(self) -> tuple[bool, int]:
        """Stages of one kind take the same time an update."""
        return self.is_distillation, self.factor

    @property
    def forward_passes(self) -> int:
        return round(self.updates * self.passes_per_update)


@dataclass
class Batch:
    """
    One process's part of an update.

    Attributes:
        images (`torch.Tensor`): x in [-1, 1], shape `(batch_size, channels, height, width)`.
        labels (`torch.Tensor` or `None`): Classes, shape `(batch_size,)`.
        uniform (`torch.Tensor`): Numbers in [0, 1), shape `(batch_size,)`, that the times are made of.
        noise (`torch.Tensor`): eps, of the shape of the images.
    """

    images: torch.Tensor
    labels: torch.Tensor | None
    uniform: torch.Tensor
    noise: torch.Tensor


@dataclass
class Examples:
    """
    What a network is to learn from a batch.

    Attributes:
        z (`torch.Tensor`): Noisy images, shape `(batch_size, channels, height, width)`.
        timestep, angle (`torch.Tensor`): What the network is fed, and phi in radians, shape `(batch_size,)`.
        target (`torch.Tensor`): The x that it is to predict, of the shape of z.
        labels (`torch.Tensor` or `None`): Classes, shape `(batch_size,)`.
        is_last (`torch.Tensor`, *optional*): Whether the student's step from here is its last, which ends in the
            finished image, shape `(batch_size,)`.
    """

    z: torch.Tensor
    timestep: torch.Tensor
    angle: torch.Tensor
    target: torch.Tensor
    labels: torch.Tensor | None
    is_last: torch.Tensor | None = None


class Draws:
    """
    The times, noise, flips and label drops of an update, drawn for the global batch and sliced (so that any split
    agrees).
    """

    def __init__(
        self,
        seed: int,
        stage: int,
        global_batch: int,
        device: torch.device,
        flip: bool,
        label_dropout: float = 0.0,
        null_label: int | None = None,
    ):
        self.seed, self.stage, self.global_batch, self.flip = seed, stage, global_batch, flip
        self.label_dropout, self.null_label = label_dropout, null_label
        self.device, self.generator = device, torch.Generator(device)

    def of_update(self, update: int, image_shape: tuple[int, ...]):
        """Uniform numbers, noise, and flips and label drops (or `None`) of the global batch of one update."""
        generator = self.generator.manual_seed(derive_seed(self.seed, self.stage, update))
        options = {"generator": generator, "device": self.device}
        uniform = torch.rand(self.global_batch, **options)
        flips = torch.rand(self.global_batch, **options) < 0.5 if self.flip else None
        noise = torch.randn(self.global_batch, *image_shape, **options)
        drops = torch.rand(self.global_batch, **options) < self.label_dropout if self.label_dropout else None
        return uniform, noise, flips, drops

    def part(self, drawn, images: torch.Tensor, labels, start: int) -> Batch:
        """The slice of an update's draws that belongs to these `uint8` images."""
        rows = slice(start, start + len(images))
        uniform, noise, flips, drops = drawn
        images = images.to(noise.device, torch.float32, non_blocking=True).div_(127.5).sub_(1)
        if flips is not None:
            images = torch.where(flips[rows, None, None, None], images.flip(-1), images)
        if labels is not None:
            labels = labels.to(noise.device, non_blocking=True)
            labels = labels if drops is None else labels.masked_fill(drops[rows], self.null_label)
        return Batch(images, labels, uniform[rows], noise[rows])


class Objective(abc.ABC):
    """
    The loss of a network of one prediction type, in two parts: the examples of a batch, which need the teacher but not
    the network that is trained, and its loss on them.
    """

    def __init__(self, prediction_type: str, weighting: str, num_train_timesteps: int):
        self.prediction_type, self.weighting = prediction_type, weighting
        self.num_train_timesteps = num_train_timesteps

    def weight(self, angle: torch.Tensor) -> torch.Tensor:
        """The factor of the squared error of the network's own output, of the shape of `angle`."""
        return loss_weight(angle, self.weighting, self.prediction_type)

    @abc.abstractmethod
    def examples(self, batch: Batch) -> Examples:
        """Noisy images and their targets; nothing in them needs a gradient."""

    def loss(self, model, examples: Examples) -> torch.Tensor:
        """w(SNR) ||x~ - x(z)||^2, formed in the network's own output space (see `processes/weighting.py`)."""
        z, angle = examples.z, examples.angle
        output = model(z, examples.timestep, class_labels=examples.labels, return_dict=False)[0].float()
        alpha, sigma = torch.cos(angle)[:, None, None, None], torch.sin(angle)[:, None, None, None]
        if self.prediction_type == "sample_epsilon":
            output = to_sample(output, z, alpha, sigma, self.prediction_type)
        return self.reduce(self.error(output, examples, alpha, sigma), self.weight(angle))

    def error(self, output: torch.Tensor, examples: Examples, alpha, sigma) -> torch.Tensor:
        """Of the output, or of the x that two heads make together."""
        return output - from_sample(examples.target, examples.z, alpha, sigma, self.prediction_type)

    def reduce(self, error: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The loss of a batch of errors."""
        return weighted_loss(error, weight)


class DenoisingObjective(Objective):
    """Algorithm 1: the target is the image itself, at t uniform in (0, 1]."""

    @torch.no_grad()
    def examples(self, batch: Batch) -> Examples:
        time = 1 - batch.uniform
        angle = cosine_angle(time)
        z = add_noise(batch.images, batch.noise, angle[:, None, None, None])
        timestep = time_to_timestep(time, self.num_train_timesteps)
        return Examples(z, timestep, angle, self.target(z, angle, batch), batch.labels)

    def target(self, z: torch.Tensor, angle: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What x is compared with."""
        return batch.images


class ConversionObjective(DenoisingObjective):
    """The target is what a teacher on another schedule says of the image at the same log-SNR."""

    def __init__(self, teacher: ConversionTeacher, prediction_type: str, weighting: str, num_train_timesteps: int):
        super().__init__(prediction_type, weighting, num_train_timesteps)
        self.teacher = teacher

    def weight(self, angle: torch.Tensor) -> torch.Tensor:
        weight = super().weight(angle)
        if self.teacher.prediction_type != "epsilon":
            return weight
        # An epsilon teacher errs as much in epsilon at every noise level: its x is trusted with SNR, but for a little
        # weight that keeps the max_angle end trained.
        trust = torch.maximum(
            loss_weight(angle, "snr", self.prediction_type),
            NOISY_END_WEIGHT * loss_weight(angle, "snr_plus_one", self.prediction_type),
        )
        return torch.minimum(weight, trust)

    def target(self, z, angle, batch: Batch) -> torch.Tensor:
        return self.teacher.target(z, angle, batch.labels, batch.images)


class DistillationObjective(Objective):
    """
    Algorithm 2: the target is where two steps of the teacher lead (or `factor` of them, or the midpoint rule), at t =
    i/N with i uniform in 1 ... N. With `clip_loss` the last step, i = 1, is judged by the finished image.
    """

    def __init__(
        self,
        teacher,
        teacher_type,
        num_steps,
        prediction_type,
        weighting,
        num_train_timesteps,
        device=None,
        factor: int = 2,
        doubled_stride: bool = False,
        midpoint: bool = False,
        huber_c: float | None = None,
        clip_loss: bool = False,
        clip_margin: float = 0.7,
    ):
        super().__init__(prediction_type, weighting, num_train_timesteps)
        self.teacher, self.teacher_type, self.num_steps = teacher, teacher_type, num_steps
        self.huber_c, self.clip_loss, self.clip_margin = huber_c, clip_loss, clip_margin
        # The stochastic sampler's student spans two steps of a teacher on its own grid.
        if doubled_stride:
            self.grid = TargetGrid.create_doubled(num_steps, num_train_timesteps, device=device)
        else:
            self.grid = TargetGrid.create(
                num_steps, num_train_timesteps, device=device, factor=factor, midpoint=midpoint
            )

    @torch.no_grad()
    def examples(self, batch: Batch) -> Examples:
        index = (batch.uniform * self.num_steps).long()
        rows = self.grid.at(index)
        angle = rows.angles[:, 0]
        z = add_noise(batch.images, batch.noise, angle[:, None, None, None])
        target = teacher_target(
            lambda sample, timestep: self.teacher(sample, timestep, batch.labels, return_dict=False)[0],
            z,
            rows,
            self.teacher_type,
        )
        return Examples(z, rows.timesteps[:, 0], angle, target, batch.labels, index == 0)

    def error(self, output: torch.Tensor, examples: Examples, alpha, sigma) -> torch.Tensor:
        error = super().error(output, examples, alpha, sigma)
        if not self.clip_loss:
            return error
        # Two heads have been merged to the x that they mean.
        is_x = self.prediction_type == "sample_epsilon"
        x = output if is_x else to_sample(output, examples.z, alpha, sigma, self.prediction_type)
        hidden = hidden_error(x, examples.target, self.clip_margin) * output_slope(alpha, sigma, self.prediction_type)
        return error - torch.where(examples.is_last[:, None, None, None], hidden, 0.0)

    def reduce(self, error: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if self.huber_c is None:
            return super().reduce(error, weight)
        return pseudo_huber_loss(error, weight, self.huber_c)
