"""Arrays and pictures of other depths than 8 bits as pictures of 8 bits; what a colour key makes transparent."""

from collections.abc import Callable

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


def reduce_depth(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """A deep picture as `L`, with nothing of its range clipped, and the kinds of [`Findings`]."""
    values = np.asarray(image)
    is_wide = image.mode == "I" and image.format in ("PNG", "PPM")
    if not image.mode.startswith("I;16") and not is_wide:
        return Image.fromarray(_fit_range(values)), ("range",)
    tags = getattr(image, "tag_v2", None) or {}
    # A TIFF may have 12 bits.
    bits = tags.get(BITS_PER_SAMPLE, 16)
    gray = _scale(values, 2 ** (bits if isinstance(bits, int) else bits[0]) - 1)
    # Pillow inverts what is white at zero in 8 bits only.
    return Image.fromarray(255 - gray if tags.get(PHOTOMETRIC) == 0 else gray), ()


def _fit_range(values: np.ndarray) -> np.ndarray:
    """Values without a known white as bytes: in the smallest of 0 ... 1 (floats), 0 ... 255 and 0 ... 65535."""
    if not values.size or not np.isfinite(values).all():
        raise ValueError("some of its values are not numbers")
    least, most = values.min(), values.max()
    whites = [white for white in (1, 255, 65535) if most <= white and (white > 1 or values.dtype.kind == "f")]
    if least < 0 or not whites:
        raise ValueError(f"its values go from {least:g} to {most:g}: only 0 to 1, 255 or 65535 can be shown")
    return _scale(values, whites[0])


def _scale(values: np.ndarray, white: int) -> np.ndarray:
    if values.size and values.max() > white:
        raise ValueError(f"it has values above {white}")
    return np.rint(values.astype(np.float64) * (255 / white)).astype(np.uint8)


def make_picture(values: np.ndarray) -> Image.Image:
    """An array of height, width and 1 to 4 channels as a picture."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    is_picture = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in MODES)
    if not is_picture or not values.size or values.dtype.kind not in "buif":
        raise ValueError(f"an array of {values.dtype} with the shape {values.shape} is no image")
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if values.dtype == np.uint16:
        values = _scale(values, 65535)
    return Image.fromarray(values if values.dtype == np.uint8 else _fit_range(values))


def find_transparency(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """How to make the alpha channel of an opened picture once it is loaded; `None` if Pillow itself knows it."""
    key, mode, size = image.info.get("transparency"), image.mode, image.size
    if image.format == "GIF" and image.tile and tuple(image.tile[0][1]) != (0, 0, *size):
        # The first frame does not cover the picture.
        box = image.tile[0][1]

        def cut_alpha(loaded: Image.Image) -> Image.Image:
            alpha = Image.new("L", size)
            alpha.paste(loaded.convert("RGBA").getchannel("A").crop(box), box)
            return alpha

        return cut_alpha
    if not (mode in ("1", "L", "RGB") or mode.startswith("I;16")) or not isinstance(key, (int, tuple)):
        return None
    # Pillow compares the colour key of a gray PNG of 2 or 4 bits, and of any PNG of 16 bits, with other numbers than
    # the pixels'. How they were stored is known until they are loaded.
    stored = image.tile[0][3] if image.format == "PNG" and image.tile else None
    key = np.asarray(key)
    if isinstance(stored, str):
        key = key >> 8 if stored == "RGB;16B" else key * KEY_FACTORS.get(stored, 1)

    def compare(loaded: Image.Image) -> Image.Image:
        same = np.asarray(loaded.convert("L") if mode == "1" else loaded) == key
        same = same.all(-1) if mode == "RGB" else same
        return Image.fromarray(np.where(same, 0, 255).astype(np.uint8))

    return compare
