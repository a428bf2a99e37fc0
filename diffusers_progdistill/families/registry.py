"""The families, each of which is one line here."""

from ..pipelines.source import ModelSource, open_folder
from .base import Family, Model
from .dit import DiTFamily
from .unet2d import UNet2DFamily


FAMILIES: list[Family] = [
    UNet2DFamily(),
    DiTFamily(),
]


def find_family(index: dict) -> Family:
    """The family of a `model_index.json`. The first one gets what no family names, and says why it cannot be used."""
    name = index.get("_class_name")
    return next((family for family in FAMILIES if name in family.pipeline_classes), FAMILIES[0])


def open_model(source: ModelSource) -> Model:
    """
    Load a model of any family from a folder or the Hub. Nothing that comes with it runs unless it is trusted.

    Raises:
        [`InputError`]: If there is none, it cannot be trusted, or no family can use it.
    """
    folder, index = open_folder(source, lambda index, what: find_family(index).check_index(index, what))
    return find_family(index).open(source, folder, index)
