"""Training images by Hub name, local folder or parquet file, as bytes of one resolution; and their order."""

from .decode import open_image, to_array
from .digits import load_digits
from .images import ImageData
from .load import load_data
from .order import GlobalOrder, make_loader


__all__ = ["GlobalOrder", "ImageData", "load_data", "load_digits", "make_loader", "open_image", "to_array"]
