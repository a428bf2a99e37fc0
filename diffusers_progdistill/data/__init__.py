"""Training images by Hub name, local folder or parquet file, as bytes of one resolution; and their order."""

from .decode import read_picture
from .images import ImageData
from .load import load_data, load_digits
from .order import BatchLayout, GlobalOrder, make_loader
from .sizes import to_array


__all__ = [
    "BatchLayout",
    "GlobalOrder",
    "ImageData",
    "load_data",
    "load_digits",
    "make_loader",
    "read_picture",
    "to_array",
]
