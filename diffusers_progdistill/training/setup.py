"""What every run does before its first update, and all refusals that need the files: teacher, geometry, batch."""

import copy
import logging
import os
from datetime import timedelta
from pathlib import Path

import diffusers
import torch
from accelerate import Accelerator
from accelerate.utils import DynamoBackend, GradientAccumulationPlugin, InitProcessGroupKwargs, set_seed

from ..data import ImageData
from ..errors import InputError, describe_reason
from ..record import Record
from .config import DistillationConfig, TrainingConfig
from .launcher import PRECISION, is_asked, refuse_unsupported, resolve_accumulation, resolve_precision
from .pretrained import Teacher
from .trackers import list_trackers


logger = logging.getLogger(__name__)

# How long processes wait for one that writes, measures or decodes images; the default is some minutes.
LONGEST_WAIT = timedelta(hours=2)


def make_accelerator(config: TrainingConfig, logging_dir: Path | None) -> Accelerator:
    """The accelerator of a run, as the options and accelerate's settings say; without a logging folder no tracker."""
    refuse_unsupported()
    precision, asked = resolve_precision(config)
    trackers = [] if logging_dir is None else list_trackers(config.report_to)
    accelerator = start_accelerator(
        precision,
        asked,
        # Where the number alone is given, accelerate's environment would win over a typed one.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=resolve_accumulation(config)),
        log_with=trackers or None,
        project_dir=None if logging_dir is None else str(logging_dir),
    )
    # Several processes would repeat each other's notices.
    if not accelerator.is_local_main_process:
        diffusers.utils.logging.set_verbosity_error()
        logging.getLogger("diffusers_progdistill").setLevel(logging.ERROR)
    set_seed(config.seed)
    return accelerator


def make_evaluation_accelerator() -> Accelerator:
    """The processes and the device of an evaluation, which is made in fp32 whatever accelerate's settings say."""
    refuse_unsupported()
    accelerator = start_accelerator("no", "fp32")
    asked = os.environ.get(PRECISION) or "no"
    if asked.lower() != "no":
        accelerator.print(f"evaluating in fp32: {PRECISION}={asked} counts in training only")
    return accelerator


def start_accelerator(precision: str, asked: str, **options) -> Accelerator:
    """The accelerator of a precision, which `asked` has asked for; what accelerate refuses is one line."""
    on_cpu = not torch.accelerator.is_available() or is_asked("ACCELERATE_USE_CPU")
    if precision == "fp16" and on_cpu:
        raise InputError(f"{asked} needs a GPU: use bf16 or no on a CPU")
    # A person watches our own bar; diffusers' bar for loading two components says nothing.
    diffusers.utils.logging.disable_progress_bar()
    wait = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    try:
        # Without `cpu`, processes that torchrun starts on a CPU would each train alone, in the same folder.
        return Accelerator(cpu=on_cpu, mixed_precision=precision, kwargs_handlers=[wait], **options)
    except (ValueError, ImportError, NotImplementedError) as error:
        reason = describe_reason(error)
        raise InputError(f"accelerate does not start with {asked} and its own settings: {reason}") from error


# Of the weights of a frozen network, as in diffusers' training scripts.
FROZEN_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def prepare_frozen(accelerator: Accelerator, network: torch.nn.Module) -> torch.nn.Module:
    """
    A network that is only asked, as accelerate's settings want it: in mixed precision a copy whose weights are held in
    that precision, and compiled where what is trained is. The networks of later stages find the code of the first.
    """
    dtype = FROZEN_DTYPES.get(accelerator.mixed_precision)
    network = network if dtype is None else copy.deepcopy(network).to(dtype)
    plugin = accelerator.state.dynamo_plugin
    return network if plugin.backend == DynamoBackend.NO else torch.compile(network, **plugin.to_kwargs())


def check_resume(config: TrainingConfig, record: Record):
    """Refuse the name of a checkpoint that is not there (that of a finished stage is no longer needed)."""
    wanted = config.resume_from_checkpoint
    folder = record.folder / "checkpoints"
    is_over = record.finished or record.stage(Path(wanted).name.rpartition("-")[0]) is not None
    if wanted != "latest" and not is_over and not (folder / Path(wanted).name).is_dir():
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        raise InputError(
            f"--resume_from_checkpoint {wanted} is not in {folder}: it must be latest"
            + (f" or one of {', '.join(names)}" if names else "")
        )


def check_classes(record: Record, metadata: dict):
    """Refuse to go on with a run whose classes had other labels, as when a class folder was renamed."""
    begun = record.content.get("about", {}).get("model")
    names, labels = ([(begun or {}).get(key), metadata.get(key)] for key in ("class_names", "known_labels"))
    if begun is not None and (names[0] != names[1] or labels[0] != labels[1]):
        odd = [f"{a} -> {b}" for a, b in zip(*(side or [] for side in names)) if a != b]
        odd = odd or [f"{labels[0]} -> {labels[1]}"]
        raise InputError(
            f"--output_dir {record.folder} holds a run whose labels stand for other classes ({', '.join(odd[:3])}):"
            " give a new folder"
        )


def check_batch(config: TrainingConfig, num_images: int, accelerator: Accelerator) -> int:
    """The global batch size, which must fit into the data set once."""
    global_batch = config.train_batch_size * accelerator.gradient_accumulation_steps * accelerator.num_processes
    if global_batch > num_images:
        raise InputError(
            f"--train_batch_size {config.train_batch_size} makes batches of {global_batch}, but the data set has"
            f" {num_images} images: it must be at most that"
        )
    return global_batch


def describe_run(config: DistillationConfig, teacher: Teacher, data: ImageData) -> dict:
    """What the model card says of the run: names only of what is on the Hub, never a path."""
    teacher_name = config.pretrained_teacher_model
    is_local = config.train_data_dir is not None or os.path.exists(config.dataset_name or "")
    source = "digits" if config.dataset_name == "digits" else "local" if is_local else "hub"
    about = {
        "teacher": name_source("local" if os.path.isdir(teacher_name) else "hub", teacher_name),
        "data": name_source(source, config.dataset_name) | ({"skipped": data.num_skipped} if data.num_skipped else {}),
        "model": {
            "parameters": sum(p.numel() for p in teacher.model.network.parameters()),
            "resolution": data.resolution,
            "channels": data.channels,
            "num_classes": teacher.metadata.get("num_classes"),
            **{k: teacher.metadata[k] for k in ("class_names", "known_labels") if k in teacher.metadata},
        },
    }
    if teacher.model.family.stock_call is not None:
        about["model"]["stock_call"] = teacher.model.family.stock_call
    if teacher.reasons:
        about["converted"] = teacher.reasons
    if teacher.guidance_scale != 1:
        about["guidance_scale"] = teacher.guidance_scale
    return about


def name_source(source: str, name: str) -> dict:
    """Where something comes from; its name if that is public."""
    return {"source": source, "name": name} if source == "hub" else {"source": source}
