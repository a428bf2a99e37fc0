"""Training a teacher (Algorithm 1)."""

import dataclasses
from pathlib import Path

from ..data import load_data
from ..data.classes import spans
from ..data.notices import notice
from ..data.sizes import check_levels, parse_side
from ..denoisers.base import Denoiser
from ..families.unet2d import UNet2DFamily
from ..families.unet2d_network import DEFAULT_WIDTHS, check_forward, default_unet_config, load_unet_config, make_unet
from ..objectives.denoising import DenoisingObjective
from ..objectives.stage import Stage
from ..pipelines.export import attach_metadata
from ..pipelines.loading import ModelSource
from ..schedulers import ProgressiveDistillationScheduler
from .config import TeacherConfig
from .isolation import isolated
from .plan import print_plan
from .recipes import resolve
from .run import Run, check_batch, describe_classes, open_accelerator
from .single import run_single
from .task import StageTask


@isolated()
def train_teacher(config: TeacherConfig) -> Path:
    """
    Train a diffusion model on the canonical schedule in continuous time (Algorithm 1) and save its averaged weights.

    Args:
        config ([`TeacherConfig`]): All options.

    Returns:
        `Path`: The pipeline folder. If it is there already, finished with the same settings, nothing is done.

    Raises:
        [`InputError`]: For options that cannot work, before anything is written.
        `FloatingPointError`: If the loss stops being finite.
    """
    config = dataclasses.replace(config)
    config.check()
    accelerator = open_accelerator(config)
    config = resolve(config, accelerator)
    name, flag = config.model_config_name_or_path, "--model_config_name_or_path"
    source = ModelSource(name, flag, cache_dir=config.cache_dir, token=config.hub_token)
    unet_config = None if name is None else load_unet_config(source)
    given, owner = unet_config or {}, f"{flag} {name}"
    side = config.resolution or parse_side(given.get("sample_size"), owner)
    if given and side:
        check_levels(side, {**DEFAULT_WIDTHS, **given}, owner)
    data = load_data(config, channels=given.get("in_channels", 3) if given else None, resolution=side)
    unet_config = unet_config or default_unet_config(data.resolution, data.channels)
    unet_config["sample_size"] = data.resolution
    unet_config["out_channels"] = data.channels * (2 if config.prediction_type == "sample_epsilon" else 1)
    if config.class_column is not None:
        # The null class, which stands for none, is the last label.
        unet_config["num_class_embeds"] = data.num_classes + bool(config.label_dropout)
    check_levels(data.resolution, {**DEFAULT_WIDTHS, **unet_config}, owner)
    check_forward(unet_config, config.prediction_type)
    run = Run(config, accelerator, data, check_batch(config, len(data), accelerator))
    unet = make_unet(unet_config, config.prediction_type).to(accelerator.device)
    scheduler = ProgressiveDistillationScheduler(prediction_type=config.prediction_type)
    stage = Stage("teacher", config.max_train_steps, passes_per_update=3, label_dropout=config.label_dropout)
    if config.class_column is not None:
        if data.known_labels != list(range(data.num_classes)):
            notice(
                f"--class_column: of the labels 0 to {data.num_classes - 1} the data have {spans(data.known_labels)}"
            )
        null_label = data.num_classes if config.label_dropout else None
        scheduler = attach_metadata(scheduler, **describe_classes(data, null_label))
    student = Denoiser(unet, scheduler.schedule, config.prediction_type, has_classes=config.class_column is not None)
    task = StageTask(stage, DenoisingObjective(student, config.weighting), scheduler, config.ema_decay)
    if config.dry_run:
        print_plan(run, [stage], {stage.kind: task})
        return Path(config.output_dir)
    return run_single(run, task, UNet2DFamily())
