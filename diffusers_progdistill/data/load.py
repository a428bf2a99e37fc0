"""The training images that a config names: the embedded digits, a local folder, tables, or a data set of the Hub."""

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..options import DataOptions
from .decode import PLAIN, Reading, parse_color
from .images import ImageData
from .labels import Found, Labels
from .local import find_local
from .sizes import look_at
from .tables import find_on_hub


def load_data(
    config: DataOptions, channels: int | None = None, resolution: int | None = None, memory_limit: int | None = None
) -> ImageData:
    """
    Load the images that a config names.

    Args:
        config ([`DataOptions`]): Which.
        channels (`int`, *optional*): What the network takes; the data must have as many.
        resolution (`int`, *optional*): Used where the config names none; else the images' own size.
        memory_limit (`int`, *optional*): Bytes up to which decoded images are kept in memory. Default: 2 GiB.
    """
    source = _name_source(config)
    reading = Reading(source, parse_color(config.background_color), config.center_crop, memory_limit)
    data = _make_data(find_images(config), config.resolution or resolution, reading)
    if channels is not None and data.channels != channels:
        kind = "grayscale images (1 channel)" if data.channels == 1 else "colour images (3 channels)"
        raise InputError(
            f"{source} holds {kind}, but the UNet has in_channels={channels}: convert the images, or use another model"
        )
    return data


def _name_source(config: DataOptions) -> str:
    """What a message calls the data set: the option that names it, and its value."""
    if config.train_data_dir is not None:
        return f"--train_data_dir {config.train_data_dir}"
    return f"--dataset_name {config.dataset_name}"


def find_images(config: DataOptions) -> Found:
    """What the data set of a config holds; nothing is decoded."""
    path, source = Path(config.train_data_dir or config.dataset_name), _name_source(config)
    if config.train_data_dir is None and config.dataset_name == "digits":
        if config.train_split not in (None, "train"):
            raise InputError(f"--train_split {config.train_split}: the digits have no splits; leave it out")
        return _find_digits()
    if config.train_data_dir is not None or path.exists():
        return find_local(path, config, source)
    return find_on_hub(config, source)


def _find_digits() -> Found:
    try:
        from sklearn.datasets import load_digits as load
    except ImportError:
        right = "`pip install diffusers-progdistill[demo]`"
        raise InputError(f"--dataset_name digits needs scikit-learn: {right}") from None
    scans = load()
    arrays = np.round(scans.images * (255 / 16)).astype(np.uint8)
    return Found(list(arrays), Labels(scans.target.tolist(), {digit: str(digit) for digit in range(10)}))


def load_digits() -> ImageData:
    """The embedded data set: scikit-learn's 1,797 scans of handwritten digits, 8x8 pixels of 17 gray levels."""
    return _make_data(_find_digits(), None, PLAIN)


def _make_data(found: Found, resolution: int | None, reading: Reading) -> ImageData:
    """The images that were found, in the size that is asked for or that the first of them has."""
    look, labels = look_at(found.entries, reading), found.labels
    values, names = (None, None) if labels is None else (labels.values, list(labels.names.values()) or None)
    return ImageData(found.entries, values, look.channels, resolution or look.size, names, reading)
