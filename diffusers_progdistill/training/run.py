"""A run: what its options name, loaded and checked."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator

from ..data import ImageData, load_data
from ..data.sizes import settle
from ..denoisers.codec import Codec, PixelCodec
from ..record import TEACHER_KEY
from .config import ConversionConfig, TrainingConfig
from .hardware import print_hardware
from .pretrained import FLAG, Teacher, fit_to_data, load_teacher
from .resolve import resolve
from .setup import check_batch, make_accelerator
from .threads import tell_threads


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
        key = {} if self.teacher is None else {TEACHER_KEY: self.teacher.key}
        size = {"num_images": len(self.data), "global_batch_size": self.global_batch}
        return {**self.config.weight_settings(), **size, **key}


def open_accelerator(config: TrainingConfig) -> Accelerator:
    """The accelerator of a run, with its tracker in the output folder unless nothing is to be written; says so."""
    accelerator = make_accelerator(config, None if config.dry_run else Path(config.output_dir) / config.logging_dir)
    print_hardware(accelerator)
    tell_threads(accelerator)
    return accelerator


def open_run(config: ConversionConfig) -> Run:
    """Load the teacher and the images, and refuse what does not fit together. The run has options of its own."""
    config = dataclasses.replace(config)
    config.check()
    accelerator = open_accelerator(config)
    model = load_teacher(config)
    config = resolve(config, accelerator, model)
    owner = f"{FLAG} {config.pretrained_teacher_model}"
    channels, side = model.family.read_image_size(model)
    data = load_data(config, channels, settle(config.resolution, side, owner))
    # What is trained on is what the students, which are made of this network, sample.
    model.family.set_resolution(model, data.resolution, owner)
    teacher = fit_to_data(config, model, data)
    teacher.model.freeze(accelerator.device)
    batch = check_batch(config, len(data), accelerator)
    return Run(config, accelerator, data, batch, teacher, teacher.model.codec)
