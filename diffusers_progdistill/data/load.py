"""The training images that a config names, from a local folder, tables or the Hub."""

import os
from pathlib import Path

from ..errors import InputError
from .decode import Reading, parse_color
from .digits import load_digits
from .found import Found
from .hub import find_on_hub
from .images import ImageData
from .local import find_local
from .sizes import look_at


def load_data(
    config, channels: int | None = None, resolution: int | None = None, memory_limit: int | None = None
) -> ImageData:
    """
    Load the training images that a config names.

    Args:
        config ([`TrainingConfig`]): Its data set options.
        channels (`int`, *optional*): What the UNet takes; the data must have as many.
        resolution (`int`, *optional*): Used where the config names none; else the images' own size.
        memory_limit (`int`, *optional*): Bytes up to which decoded images are kept in memory. Default: 2 GiB.

    Raises:
        [`InputError`]: If there is no such data set, it has no readable image, or its channels differ.
    """
    background = parse_color(config.background_color)
    if config.dataset_name == "digits":
        if config.train_split not in (None, "train"):
            raise InputError(f"--train_split {config.train_split}: the digits have no splits; leave it out")
        data = load_digits(config.resolution or resolution or 8, config.center_crop)
    else:
        data = _load_found(config, resolution, background, memory_limit)
    if channels is not None and data.channels != channels:
        kind = "grayscale images (1 channel)" if data.channels == 1 else "colour images (3 channels)"
        raise InputError(
            f"{source_of(config)} holds {kind}, but the UNet has in_channels={channels}: convert the images, or use a"
            f" model with in_channels={data.channels}"
        )
    return data


def source_of(config) -> str:
    """What a message calls the data set: the option that names it, and its value."""
    if config.train_data_dir is not None:
        return f"--train_data_dir {config.train_data_dir}"
    return f"--dataset_name {config.dataset_name}"


def find_images_of(config) -> Found:
    """What the data set of a config holds; nothing is decoded."""
    source = source_of(config)
    if config.train_data_dir is not None:
        return find_local(Path(config.train_data_dir), config, source)
    if os.path.exists(config.dataset_name):
        return find_local(Path(config.dataset_name), config, source)
    return find_on_hub(config, source)


def _load_found(config, resolution, background, memory_limit) -> ImageData:
    source, found = source_of(config), find_images_of(config)
    labels, names = None, None
    if found.labels is not None:
        labels = found.labels.values
        names = [found.labels.names[label] for label in range(len(found.labels.names))] or None
    reading = Reading(source, background, config.center_crop, memory_limit)
    look = look_at(found.entries, reading)
    return ImageData(
        found.entries, labels, look.channels, config.resolution or resolution or look.size, names, reading
    )
