"""The embedded data set."""

import numpy as np
from PIL import Image

from ..errors import InputError
from .decode import Reading
from .images import ImageData


def load_digits(resolution: int = 8, center_crop: bool = True) -> ImageData:
    """The embedded data set: scikit-learn's 1,797 scans of handwritten digits, 8x8 pixels of 17 gray levels."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError:
        raise InputError(
            "--dataset_name digits needs scikit-learn: `pip install diffusers-progdistill[demo]`"
        ) from None
    raw = load()
    arrays = np.round(raw.images * (255 / 16)).astype(np.uint8)
    names = [str(d) for d in range(10)]
    entries = [Image.fromarray(a) for a in arrays] if resolution != 8 else list(arrays[:, None])
    return ImageData(entries, raw.target, 1, resolution, names, Reading(center_crop=center_crop))
