"""Training a teacher (Algorithm 1)."""

import dataclasses
import logging
from difflib import get_close_matches
from inspect import signature
from pathlib import Path

import torch
from diffusers import UNet2DModel

from ..data import load_data
from ..data.classes import spans
from ..data.notices import notice
from ..data.sizes import check_levels, count_levels, parse_side
from ..errors import InputError, describe_reason
from ..pipelines.export import with_metadata
from ..pipelines.loading import ModelSource, read_network_config
from ..pipelines.networks import check_network, needs_labels
from ..schedulers import ProgressiveDistillationScheduler
from .config import TeacherConfig
from .isolation import isolated
from .plan import print_plan
from .pretrained import describe_classes
from .resolve import resolve
from .run import Run, open_accelerator, run_alone
from .setup import check_batch
from .stages import DenoisingObjective, Stage


logger = logging.getLogger(__name__)

# Of a UNet2DModel whose config does not say.
DEFAULT_WIDTHS = {"block_out_channels": (224, 448, 672, 896)}


def default_unet_config(resolution: int, channels: int) -> dict:
    """
    A network that fits the images: two small levels up to 16 pixels, else the layout of the DDPM networks, with one
    more level for each doubling over 32 pixels and attention at 16. Where the size cannot be halved so often, it has
    fewer levels.
    """
    if resolution <= 16:
        widths, layers, attention = (16, 32), 1, []
    else:
        widths, layers, attention = (128, 256, 256, 256), 2, [1]
        while resolution / 2 ** (len(widths) - 1) > 8:
            widths, attention = (*widths, widths[-1]), [attention[0] + 1]
    levels = count_levels(resolution, len(widths))
    if levels < len(widths):
        factor = 2 ** (len(widths) - 1)
        logger.warning(
            "the default network gets %d of its %d levels, since images of %dx%d cannot be halved more often;"
            " --resolution %d would give it all",
            *(levels, len(widths), resolution, resolution, max(round(resolution / factor), 1) * factor),
        )
        widths = widths[:levels]
    down = ["AttnDownBlock2D" if i in attention else "DownBlock2D" for i in range(len(widths))]
    return {
        "sample_size": resolution,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": tuple(down),
        "up_block_types": tuple(b.replace("Down", "Up") for b in reversed(down)),
        "norm_num_groups": 8 if resolution <= 16 else 32,
        "add_attention": bool(attention),
    }


def check_forward(unet_config: dict, prediction_type: str):
    """Refuse a network that cannot take an image of its size, without computing anything."""
    with torch.device("meta"):
        unet = make_unet(unet_config, prediction_type)
        image = torch.empty(1, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        label = torch.zeros(1, dtype=torch.long) if needs_labels(unet) else None
        try:
            unet(image, torch.zeros(1), label)
        except Exception as error:  # whatever in a config of any kind does not fit
            side, reason = unet.config.sample_size, describe_reason(error)
            raise InputError(
                f"--model_config_name_or_path makes a network that cannot take images of {side}x{side}: {reason}"
            ) from error


def load_unet_config(config: TeacherConfig) -> dict | None:
    """The UNet2DModel config that `--model_config_name_or_path` names, or `None`."""
    name, flag = config.model_config_name_or_path, "--model_config_name_or_path"
    if name is None:
        return None
    unet_config = read_network_config(ModelSource(name, flag, cache_dir=config.cache_dir, token=config.hub_token))
    known = list(signature(UNet2DModel.__init__).parameters)
    if unknown := [key for key in unet_config if key not in known]:
        near = get_close_matches(unknown[0], known, 1)
        advice = f"did you mean {near[0]}?" if near else "give the config of a UNet2DModel"
        raise InputError(f"{flag} {name}: a UNet2DModel has no {unknown[0]!r}; {advice}")
    if not isinstance(unet_config.get("in_channels", 3), int):
        raise InputError(f"{flag} {name}: in_channels must be a whole number, not {unet_config['in_channels']!r}")
    return unet_config


def make_unet(unet_config: dict, prediction_type: str) -> UNet2DModel:
    """The network with fresh weights."""
    try:
        unet = UNet2DModel(**unet_config)
    except Exception as error:  # whatever the layers make of values that do not fit
        reason = describe_reason(error)
        raise InputError(f"--model_config_name_or_path is not a UNet2DModel's config: {reason}") from error
    check_network(unet, "--model_config_name_or_path", prediction_type)
    return unet


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
    unet_config = load_unet_config(config)
    given = unet_config or {}
    owner = f"--model_config_name_or_path {config.model_config_name_or_path}"
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
    objective = DenoisingObjective(config.prediction_type, config.weighting, scheduler.config.num_train_timesteps)
    stage = Stage("teacher", 0, config.max_train_steps, passes_per_update=3)
    if config.dry_run:
        print_plan(run, [stage], {stage.kind: (unet, objective)})
        return Path(config.output_dir)
    if config.class_column is not None:
        if data.known_labels != list(range(data.num_classes)):
            notice(
                f"--class_column: of the labels 0 to {data.num_classes - 1} the data have {spans(data.known_labels)}"
            )
        null_label = data.num_classes if config.label_dropout else None
        scheduler = with_metadata(scheduler, **describe_classes(data, null_label))
    return run_alone(run, unet, objective, scheduler, stage, config.ema_decay)
