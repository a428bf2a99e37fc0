"""A run: what its options name, loaded and checked; and a run of a single stage, from fresh to finished."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from ..data import ImageData, load_data
from ..data.findings import REPLACED
from ..data.sizes import check_levels, settle
from ..record import TEACHER_KEY, Record, only_process_in
from .config import ConversionConfig, TrainingConfig
from .hardware import describe_hardware, print_hardware
from .monitor import Monitor
from .pretrained import FLAG, Teacher, fit_to_data, load_teacher
from .resolve import resolve
from .setup import check_batch, check_resume, make_accelerator
from .signals import StopRequest
from .stages import Stage
from .student import make_student
from .threads import tell_threads
from .trackers import finish_trackers, start_trackers


@dataclass
class Run:
    """What the options of a run name, loaded and checked. A teacher that is trained from nothing has no teacher."""

    config: TrainingConfig
    accelerator: Accelerator
    data: ImageData
    global_batch: int
    teacher: Teacher | None = None

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
    pipeline = load_teacher(config)
    config = resolve(config, accelerator, pipeline.scheduler)
    unet, owner = pipeline.unet, f"{FLAG} {config.pretrained_teacher_model}"
    data = load_data(config, unet.config.in_channels, settle(config.resolution, unet.config.sample_size, owner))
    check_levels(data.resolution, unet.config, owner)
    # What is trained on is what the students, which are made of this network, sample.
    unet.register_to_config(sample_size=data.resolution)
    teacher = fit_to_data(config, pipeline, data)
    pipeline.unet.requires_grad_(False).eval().to(accelerator.device)
    return Run(config, accelerator, data, check_batch(config, len(data), accelerator), teacher)


def run_alone(run: Run, network, objective, scheduler, stage: Stage, ema_decay: float | None) -> Path:
    """
    Train one model into `output_dir` itself. If it is there already, finished with the same settings, nothing is done.

    Args:
        run ([`Run`]): The options, processes and images.
        network, objective, scheduler, stage, ema_decay: As in [`make_student`].
    """
    config, accelerator, folder = run.config, run.accelerator, Path(run.config.output_dir)
    settings = run.settings()
    check_resume(config, Record(folder, settings))
    with only_process_in(folder) if run.is_main else contextlib.nullcontext():
        record = Record(folder, settings)
        if record.finished:
            accelerator.print(f"the {stage.name} in {folder} is finished already")
            return folder
        accelerator.wait_for_everyone()
        with StopRequest() as stop:
            if run.is_main:
                record.update(hardware=describe_hardware(accelerator))
            start_trackers(accelerator, record.content["settings"])
            monitor = Monitor(accelerator, folder, stage.forward_passes)
            monitor.start(stage, 1, 1, run.global_batch)
            make_student(run, network, objective, scheduler, stage, monitor, record, stop, ema_decay, alone=True)
            run.data.findings.say(REPLACED)
        finish_trackers(accelerator)
        # What comes after may need what the main process wrote.
        accelerator.wait_for_everyone()
    return folder
