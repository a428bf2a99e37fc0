"""One image file or entry of a table as bytes of one size and number of channels."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from ..trust import MOST_PIXELS, leads_out


def to_array(image: Image.Image, channels: int, resolution: int, center_crop: bool) -> np.ndarray:
    """An image as bytes of shape `(channels, resolution, resolution)`: upright, cropped or squeezed, antialiased."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16-bit grayscale: PIL's own conversion clips at 255.
        image = Image.fromarray((np.asarray(image).astype(np.float32) / 257).clip(0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    size = (resolution, resolution)
    if image.size != size:
        fit = ImageOps.fit if center_crop else Image.Image.resize
        image = fit(image, size, Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def is_gray(image: Image.Image) -> bool:
    """Whether the image file itself says that it is grayscale."""
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def open_image(entry, places: list[Path]) -> Image.Image:
    """Open what a `datasets` image column holds undecoded: bytes, or the path of a file in one of the `places`."""
    if isinstance(entry, Image.Image):
        return entry
    if entry.get("bytes") is None and all(leads_out(Path(entry["path"]), place) for place in places):
        name = Path(entry["path"]).name
        raise InputError(f"--train_data_dir: {name} leads out of the folder; put the file itself there")
    image = Image.open(entry["path"] if entry.get("bytes") is None else io.BytesIO(entry["bytes"]))
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width * image.height:,} pixels, more than {MOST_PIXELS:,}")
    return image
