"""The one place that settles the size and the channels of the images, and that brings an image to that size."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from .decode import Reading, is_gray, list_entries, open_image, quiet_pillow, read_picture


# Images whose first bytes tell whether a data set has colours.
LOOKED_AT = 256


class Look(NamedTuple):
    """What a sample of the images says: their channels, and the shorter side of the first."""

    channels: int
    size: int


def to_array(image: Image.Image, channels: int, resolution: int, center_crop: bool = True) -> np.ndarray:
    """A picture as bytes of shape `(channels, resolution, resolution)`: cropped or squeezed, antialiased."""
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (resolution, resolution):
        fit = ImageOps.fit if center_crop else Image.Image.resize
        image = fit(image, (resolution, resolution), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def look_at(entries: Sequence, reading: Reading, count: int = LOOKED_AT) -> Look:
    """Look at a sample of the images that covers the whole data set; refuse one without any that can be read."""
    quiet_pillow()
    gray, size, step = True, None, max(1, len(entries) // count)
    sample = range(0, len(entries), step)
    # The others are asked only where none of the sample can be read.
    order = [*sample, *(number for number in range(len(entries)) if number % step)]
    for place, entry in enumerate(list_entries(entries, order)):
        if size is not None and place >= len(sample):
            break
        try:
            # The size is taken from a picture that can be read to its end.
            image = read_picture(entry, reading).image if size is None else None
            gray = gray and is_gray(open_image(entry), reading)
            size = size or min(image.size)
        except Exception:  # is counted when the images are read
            continue
    if size is None:
        raise InputError(f"{reading.source} holds no readable image: give a folder with PNG or JPEG files")
    return Look(1 if gray else 3, size)


def parse_side(sample_size: object, owner: str) -> int | None:
    """The side of the images of a network, its `owner`, by its config's `sample_size`; refuse what is not square."""
    sides = list(sample_size) if isinstance(sample_size, (list, tuple)) else [sample_size]
    if sides == [None]:
        return None
    is_whole = all(type(side) in (int, float) and side > 0 and side == side // 1 for side in sides)
    if not is_whole or len(sides) not in (1, 2):
        raise InputError(f"{owner} has sample_size {sample_size}: it must be a whole number, or two equal ones")
    if sides[0] != sides[-1]:
        shown = "x".join(str(int(side)) for side in sides)
        raise InputError(f"{owner} makes images of {shown}: only networks of square images can be used")
    return int(sides[0])


def settle(resolution: int | None, sample_size: object, owner: str) -> int | None:
    """The size of a model's images by `--resolution` and its config's `sample_size`, if one of them says it."""
    side = parse_side(sample_size, owner)
    if None not in (resolution, side) and resolution != side:
        raise InputError(
            f"--resolution {resolution} does not fit {owner}, which makes images of {side}x{side}: give --resolution"
            f" {side}, or leave it out"
        )
    return side or resolution


def count_levels(side: int, most: int) -> int:
    """Levels of a network that halves an image between them: as many as its side allows, at most `most`."""
    return next((levels for levels in range(1, most) if side % 2**levels), most)


def check_levels(side: int, unet_config: Mapping, owner: str) -> None:
    """Refuse images that a network's levels cannot halve, with the nearest sizes that fit."""
    factor = 2 ** (len(unet_config["block_out_channels"]) - 1)
    if side % factor:
        near = sorted({max(side // factor, 1) * factor, (side // factor + 1) * factor})
        raise InputError(
            f"images of {side}x{side} do not fit {owner}, which halves them {factor.bit_length() - 1} times:"
            f" --resolution must be a multiple of {factor}, such as {' or '.join(map(str, near))}"
        )
