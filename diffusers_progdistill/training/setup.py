"""What every run does before its first update, and all refusals that need the files: teacher, geometry, batch."""

import logging
import os
from datetime import timedelta
from pathlib import Path

import diffusers
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed

from ..errors import InputError
from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from ..record import Record
from ..trust import check_teacher_files
from .config import DistillationConfig, TrainingConfig


logger = logging.getLogger(__name__)

# How long processes wait for one that writes, measures or decodes images; the default is some minutes.
LONGEST_WAIT = timedelta(hours=2)


def make_accelerator(config: TrainingConfig, logging_dir: Path | None) -> Accelerator:
    """The accelerator of a run; without a logging folder it has no tracker."""
    if config.mixed_precision == "fp16" and not torch.accelerator.is_available():
        raise InputError("--mixed_precision fp16 needs a GPU: use bf16 or no on a CPU")
    # A person watches our own bar; diffusers' bar for loading two components says nothing.
    diffusers.utils.logging.disable_progress_bar()
    use_tracker = logging_dir is not None and config.report_to != "none"
    accelerator = Accelerator(
        # Without this, processes that torchrun starts on a CPU would each train alone, in the same folder.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with=config.report_to if use_tracker else None,
        project_dir=None if logging_dir is None else str(logging_dir),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )
    # Several processes would repeat each other's notices.
    if not accelerator.is_local_main_process:
        diffusers.utils.logging.set_verbosity_error()
        logging.getLogger("diffusers_progdistill").setLevel(logging.ERROR)
    set_seed(config.seed)
    return accelerator


def start_trackers(accelerator: Accelerator, settings: dict):
    """Start the tracker, if any, with the run's settings in the simple types that trackers take."""
    simple = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in settings.items()}
    if accelerator.log_with:
        accelerator.init_trackers("progdistill", config=simple)


def load_teacher(config: DistillationConfig) -> ProgressiveDistillationPipeline:
    """
    Load the teacher that the options name.

    Raises:
        [`InputError`]: If there is none, it is no `UNet2DModel`, or it cannot be distilled directly.
    """
    name = config.pretrained_teacher_model
    if not os.path.isdir(name) and (os.path.isabs(name) or name.startswith(".") or name.count("/") != 1):
        raise InputError(f"--pretrained_teacher_model {name} is not a folder: give a diffusers pipeline folder")
    if os.path.isdir(name) and not os.path.exists(os.path.join(name, "model_index.json")):
        raise InputError(
            f"--pretrained_teacher_model {name} has no model_index.json: give a diffusers pipeline folder"
        )
    variant, trust = {"variant": config.variant}, {"trust_remote_code": config.trust_remote_code}
    try:
        folder = name
        if not os.path.isdir(name):
            options = {"revision": config.revision, "cache_dir": config.cache_dir, "token": config.hub_token}
            folder = ProgressiveDistillationPipeline.download(name, **options, **variant, **trust)
        check_teacher_files(Path(folder), config.trust_remote_code)
        pipeline = ProgressiveDistillationPipeline.from_pretrained(folder, **variant, **trust)
        if not isinstance(pipeline, ProgressiveDistillationPipeline):
            # A trusted folder's own class; what is distilled is its network on its schedule.
            pipeline = ProgressiveDistillationPipeline(pipeline.unet, pipeline.scheduler)
    except InputError:
        raise
    except Exception as error:  # diffusers and the Hub client raise many kinds for what is one thing to a user
        reason = str(error).split("\n")[0][:200]
        raise InputError(f"--pretrained_teacher_model {name} cannot be loaded as a pipeline: {reason}") from error
    if not isinstance(pipeline.unet, diffusers.UNet2DModel):
        raise InputError(
            f"--pretrained_teacher_model {name} has a {type(pipeline.unet).__name__}: it must be a UNet2DModel"
        )
    check_network(pipeline.unet, "--pretrained_teacher_model")
    check_teacher(config, pipeline)
    return pipeline


def check_network(unet, flag: str):
    """Refuse networks that cannot be asked at continuous timesteps or whose output is not an image."""
    if unet.config.time_embedding_type != "positional":
        raise InputError(
            f"{flag}: time_embedding_type {unet.config.time_embedding_type!r} does not work at the timesteps of"
            " continuous time; it must be 'positional'"
        )
    if unet.config.out_channels != unet.config.in_channels:
        raise InputError(
            f"{flag}: out_channels {unet.config.out_channels} must equal in_channels {unet.config.in_channels}"
        )


def check_teacher(config: DistillationConfig, pipeline):
    """Refuse teachers that would have to be adopted first, and settle what the students predict."""
    scheduler = pipeline.scheduler
    kind = scheduler.config.prediction_type
    if not scheduler.schedule.is_canonical:
        raise InputError(
            "--pretrained_teacher_model has a noise schedule that is not the canonical cosine one: give a teacher of"
            " `progdistill train-teacher`"
        )
    wanted = config.prediction_type or ("v_prediction" if kind == "epsilon" else kind)
    if wanted != kind:
        raise InputError(f"--prediction_type {wanted} differs from the teacher's {kind}: they must be equal")
    trained = scheduler.num_trained_steps
    if trained is not None and trained != config.start_steps:
        raise InputError(f"--start_steps {config.start_steps} must be {trained}, which the teacher was distilled for")
    if kind == "epsilon":
        logger.warning("epsilon says nothing about the image at pure noise: expect bad students of very few steps")
    config.prediction_type = wanted
    config.weighting = config.weighting or ("snr" if kind == "epsilon" else "truncated_snr")


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


def check_resolution(resolution: int, unet_config, flag: str = "--resolution"):
    """Refuse a resolution that the UNet's levels cannot halve."""
    factor = 2 ** (len(unet_config["block_out_channels"]) - 1)
    if resolution % factor:
        raise InputError(f"{flag} {resolution} must be a multiple of {factor}: the UNet halves it {factor} fold")


def check_batch(config: TrainingConfig, num_images: int, world: int) -> int:
    """The global batch size, which must fit into the data set once."""
    global_batch = config.train_batch_size * config.gradient_accumulation_steps * world
    if global_batch > num_images:
        raise InputError(
            f"--train_batch_size {config.train_batch_size} makes batches of {global_batch}, but the data set has"
            f" {num_images} images: it must be at most that"
        )
    return global_batch


def settings_of(config: TrainingConfig, data, global_batch: int) -> dict:
    """What the weights depend on."""
    return {**config.weight_settings(), "num_images": len(data), "global_batch_size": global_batch}


def about_of(config: DistillationConfig, teacher: ProgressiveDistillationPipeline, data) -> dict:
    """What the model card says of the run: names only of what is on the Hub, never a path."""
    local = config.train_data_dir is not None or os.path.exists(config.dataset_name or "")
    source = "digits" if config.dataset_name == "digits" else "local" if local else "hub"
    teacher_source = "local" if os.path.isdir(config.pretrained_teacher_model) else "hub"
    unet = teacher.unet
    return {
        "teacher": {
            "source": teacher_source,
            **({"name": config.pretrained_teacher_model} if teacher_source == "hub" else {}),
        },
        "data": {"source": source, **({"name": config.dataset_name} if source == "hub" else {})},
        "model": {
            "parameters": sum(p.numel() for p in unet.parameters()),
            "resolution": data.resolution,
            "channels": data.channels,
            "num_classes": unet.config.num_class_embeds,
        },
    }
