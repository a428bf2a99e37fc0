"""The one place that turns a file, bytes or an array into the picture that a viewer shows: upright, 8 bits, opaque."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageColor, ImageOps

from ..errors import InputError
from ..trust import MOST_PIXELS
from .depth import find_transparency, is_deep, make_picture, reduce_depth
from .notices import clean


WHITE = (255, 255, 255)

# An EPS file is a program, which Pillow would give to Ghostscript.
LEFT_OUT = {"EPS"}

# Formats of four bytes a pixel whose fourth is often unused: zero in all of them is no transparency.
UNUSED_ALPHA = {"BMP", "DIB", "TGA"}

# Formats whose files hold pages or an animation. (Layers, or the second picture of a phone's JPEG, are no pages.)
PAGED = {"GIF", "PNG", "TIFF", "WEBP", "AVIF", "DCX", "FLI"}

# Entries that are looked up at once: their files, not yet decoded, must fit beside the decoded images.
READ_AT_ONCE = 50


class NoImage(ValueError):
    """An entry that holds nothing where an image should be."""


@dataclass(frozen=True)
class Reading:
    """How the entries of a data set become pictures."""

    # What a message calls the data set: the option that names it.
    source: str = "--dataset_name"
    # The ground that transparent pictures are laid on.
    background: tuple[int, int, int] = WHITE
    # Whether pictures that are not square are cropped or squeezed.
    center_crop: bool = True
    # Bytes up to which decoded pictures are kept in memory, if not 2 GiB.
    memory_limit: int | None = None

    @property
    def has_gray_ground(self) -> bool:
        return len(set(self.background)) == 1


PLAIN = Reading()


class Picture(NamedTuple):
    """An image of mode `L` or `RGB`, and the kinds of [`Findings`] that apply to it."""

    image: Image.Image
    kinds: tuple[str, ...] = ()


def parse_color(name: str) -> tuple[int, int, int]:
    """The colour that `--background_color` names, if Pillow knows it."""
    try:
        return ImageColor.getrgb(str(name))[:3]
    except ValueError:
        right = "give a name such as white, or one like '#ff8000'"
        raise InputError(f"--background_color {name} is not a colour: {right}") from None


def quiet_pillow() -> None:
    """Keep Pillow from warning of what is counted and named here."""
    # Not by `catch_warnings` for every image: that would make Python repeat all other warnings.
    if not any(f[0] == "ignore" and getattr(f[3], "pattern", None) == r"PIL\." for f in warnings.filters):
        warnings.filterwarnings("ignore", module=r"PIL\.")
    # What it logs would be printed where nobody has set up logging.
    pillow = logging.getLogger("PIL")
    if not pillow.handlers:
        pillow.addHandler(logging.NullHandler())


def list_entries(column: Sequence, numbers: Sequence[int]) -> Iterator:
    """Entries of a column or list, many looked up at once: `datasets` takes long to look up a single one."""
    for first in range(0, len(numbers), READ_AT_ONCE):
        some = list(numbers[first : first + READ_AT_ONCE])
        yield from (column[number] for number in some) if isinstance(column, list) else column[some]


def name_entry(entry: object, number: int) -> str:
    """What a notice calls an entry: its file and the folder that it lies in, or its row."""
    path = entry.get("path") if isinstance(entry, dict) else entry if isinstance(entry, str) else None
    return clean("/".join(str(path).split("/")[-2:])) if path else f"row {number}"


def open_image(entry: object) -> Image.Image:
    """Open what `datasets` holds undecoded (bytes or a path), a picture or an array, without reading its pixels."""
    if isinstance(entry, dict):
        content = entry.get("bytes")
        entry = entry.get("path") if content is None else bytes(content)
    if entry is None:
        raise NoImage("it holds no image")
    if isinstance(entry, (np.ndarray, list, tuple)):
        entry = make_picture(np.asarray(entry))
    image = entry
    if isinstance(entry, (str, os.PathLike, bytes, bytearray, memoryview)):
        file = entry if isinstance(entry, (str, os.PathLike)) else io.BytesIO(entry)
        Image.init()
        image = Image.open(file, formats=[name for name in Image.ID if name not in LEFT_OUT])
    if not isinstance(image, Image.Image):
        raise ValueError(f"it is a {type(entry).__name__}, not an image")
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width * image.height:,} pixels, more than {MOST_PIXELS:,}")
    return image


def is_gray(image: Image.Image, reading: Reading = PLAIN) -> bool:
    """Whether the file itself says that the picture is grayscale, and the ground does not colour it."""
    gray = image.mode in ("1", "L", "LA", "La") or is_deep(image)
    return gray and (reading.has_gray_ground or not image.has_transparency_data)


def read_picture(entry: object, reading: Reading = PLAIN) -> Picture:
    """What a viewer shows of the first page of an entry; whatever is wrong with it is raised."""
    image = open_image(entry)
    try:
        hidden = find_transparency(image)
        image.load()
        flat, kinds = flatten(image, hidden, reading)
        flat = _turn_upright(flat, image)
        return Picture(flat, (*kinds, "page") if image is not entry and _has_pages(image) else kinds)
    finally:
        if image is not entry:
            image.close()


def _has_pages(image: Image.Image) -> bool:
    """Whether there is more than the first page that is read."""
    # What is wrong with other pages does not concern the first.
    with contextlib.suppress(Exception):
        return image.format in PAGED and getattr(image, "is_animated", False)
    return False


def flatten(image: Image.Image, hidden: Callable | None, reading: Reading) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture on its ground, as `L` or `RGB`, and the kinds of what was done."""
    kinds: tuple[str, ...] = ()
    format, alpha = image.format, hidden and hidden(image)
    if is_deep(image):
        image, kinds = reduce_depth(image)
    if image.mode == "La":
        image = image.convert("LA")
    gray = image.mode in ("1", "L", "LA")
    if alpha is not None:
        image = image.convert("L" if gray else "RGB").convert("RGBA")
        image.putalpha(alpha)
    elif not image.has_transparency_data:
        # Not every mode can become gray in one step; all can become RGB.
        return image.convert("L" if gray else "RGB"), kinds
    rgba = image.convert("RGBA")
    least, most = rgba.getchannel("A").getextrema()
    if least < 255 and (most > 0 or format not in UNUSED_ALPHA):
        rgba = Image.alpha_composite(Image.new("RGBA", rgba.size, reading.background), rgba)
        kinds = (*kinds, "transparent")
        gray = gray and reading.has_gray_ground
    flat = rgba.convert("RGB")
    return (flat.convert("L") if gray else flat), kinds


def _turn_upright(flat: Image.Image, image: Image.Image) -> Image.Image:
    """The picture as its EXIF block says that it was held, if the block can be read."""
    orientation = None
    # A block that cannot be read says nothing.
    with contextlib.suppress(Exception):
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation is None:
        return flat
    # Without the rest of the block, which Pillow would write anew.
    flat.info = {}
    flat.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(flat)
