"""Pictures of other depths than 8 bits, and arrays, as pictures of 8 bits; what a colour key makes transparent."""

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image


BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262

# What Pillow multiplies the samples of a gray PNG with; its colour key is not.
KEY_FACTORS = {"L;2": 85, "L;4": 17}

# Modes of an array's last axis.
MODES = {2: "LA", 3: "RGB", 4: "RGBA"}


def is_deep(image: Image.Image) -> bool:
    """Whether its values have more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def eight_bits(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """
    A deep picture as `L`, with all of its range: nothing is clipped.

    16-bit values go from 0 to 65535 (to 4095, if a TIFF has 12 bits). 32-bit values say nothing of their white: see
    [`in_range`].
    """
    values = np.asarray(image)
    if not image.mode.startswith("I;16"):
        if image.mode == "I" and image.format in ("PNG", "PPM"):
            return Image.fromarray(_scaled(values, 65535)), ()
        return Image.fromarray(in_range(values)), ("range",)
    tags = getattr(image, "tag_v2", None) or {}
    bits = tags.get(BITS_PER_SAMPLE, (16,))
    white = 2 ** (bits if isinstance(bits, int) else bits[0]) - 1 if tags else 65535
    gray = _scaled(values, white)
    # Pillow inverts what is white at zero in 8 bits only.
    return Image.fromarray(255 - gray if tags and tags.get(PHOTOMETRIC) == 0 else gray), ()


def in_range(values: np.ndarray) -> np.ndarray:
    """
    Values without a known white as bytes: they lie in the smallest of 0 ... 1 (floats), 0 ... 255 and 0 ... 65535.

    Raises:
        `ValueError`: If they lie in none of them.
    """
    if not values.size or not np.isfinite(values).all():
        raise ValueError("some of its values are not numbers")
    least, most = values.min(), values.max()
    whites = (1, 255, 65535) if values.dtype.kind == "f" else (255, 65535)
    white = next((white for white in whites if most <= white), None)
    if least < 0 or white is None:
        raise ValueError(f"its values go from {least:g} to {most:g}: only 0 to 1, 255 or 65535 can be shown")
    return _scaled(values, white)


def _scaled(values: np.ndarray, white: int) -> np.ndarray:
    if values.size and values.max() > white:
        raise ValueError(f"it has values above {white}")
    return np.rint(values.astype(np.float64) * (255 / white)).astype(np.uint8)


def from_array(values: np.ndarray) -> Image.Image:
    """
    An array of height, width and 1 to 4 channels as a picture.

    Raises:
        `ValueError`: If it is none.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    mode = MODES.get(values.shape[2]) if values.ndim == 3 else "L" if values.ndim == 2 else None
    if mode is None or not values.size or values.dtype.kind not in "buif":
        raise ValueError(f"an array of {values.dtype} with the shape {values.shape} is no image")
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if values.dtype == np.uint16:
        values = _scaled(values, 65535)
    return Image.fromarray(values if values.dtype == np.uint8 else in_range(values))


def _alpha_within(box, loaded: Image.Image) -> Image.Image:
    alpha = Image.new("L", loaded.size)
    alpha.paste(loaded.convert("RGBA").getchannel("A").crop(box), box)
    return alpha


def transparent_where(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """
    How to find what is transparent in an opened picture by its colour key, or because its first frame does not cover
    it; `None` if Pillow's own conversion knows it all.

    Pillow's own conversion compares the key of a gray PNG of 2 or 4 bits, and of any PNG of 16 bits, with other
    numbers than the pixels'. How they were stored is known until they are loaded.
    """
    key, mode = image.info.get("transparency"), image.mode
    if image.format == "GIF" and image.tile and tuple(image.tile[0][1]) != (0, 0, *image.size):
        return partial(_alpha_within, image.tile[0][1])
    deep = mode.startswith("I;16")
    if not (mode in ("1", "L", "RGB") or deep) or not isinstance(key, (int, tuple)):
        return None
    stored = image.tile[0][3] if image.format == "PNG" and image.tile else None
    key = np.asarray(key) * KEY_FACTORS.get(stored, 1) if isinstance(stored, str) else np.asarray(key)
    if stored == "RGB;16B":
        key = key >> 8

    def alpha_of(loaded: Image.Image) -> Image.Image:
        same = np.asarray(loaded.convert("L") if mode == "1" else loaded) == key
        same = same.all(-1) if mode == "RGB" else same
        return Image.fromarray(np.where(same, 0, 255).astype(np.uint8))

    return alpha_of
