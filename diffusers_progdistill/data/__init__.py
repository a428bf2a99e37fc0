"""Training images by Hub name, local folder or parquet file, as bytes of one resolution; and their order."""

from .images import ImageData
from .load import load_data, load_digits
from .order import BatchLayout, GlobalOrder, make_loader


__all__ = ["BatchLayout", "GlobalOrder", "ImageData", "load_data", "load_digits", "make_loader"]
