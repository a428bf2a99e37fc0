"""One leaf for each family of pipelines: how it opens, what its denoiser is, how a student of it is stored."""

from .base import Family, Model
from .registry import FAMILIES, open_model


__all__ = ["FAMILIES", "Family", "Model", "open_model"]
