"""A `UNet2DModel` to be trained from nothing: its config, made to fit the images, and its checks."""

import logging
from difflib import get_close_matches
from inspect import signature

import torch
from diffusers import UNet2DModel

from ..data.sizes import count_levels
from ..denoisers.heads import check_network, needs_labels
from ..errors import InputError, describe_reason
from ..pipelines.loading import ModelSource, read_network_config


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


def check_forward(unet_config: dict, prediction_type: str) -> None:
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


def load_unet_config(source: ModelSource) -> dict:
    """The config of a UNet2DModel that a file, a folder or a name on the Hub holds."""
    name, flag = source.name, source.flag
    unet_config = read_network_config(source)
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
