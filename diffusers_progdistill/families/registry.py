"""The families, each of which is one line here."""

from ..pipelines.loading import ModelSource, read_class_name
from .base import Family, Model
from .unet2d import UNet2DFamily


FAMILIES: list[Family] = [
    UNet2DFamily(),
]


def open_model(source: ModelSource) -> Model:
    """
    Load a model of any family from a folder or the Hub.

    Raises:
        [`InputError`]: If there is none, or it cannot be used.
    """
    # What no family names is for the first one, which says why it cannot be used.
    class_name = read_class_name(source)
    family = next((family for family in FAMILIES if class_name in family.pipeline_classes), FAMILIES[0])
    return family.open(source)
