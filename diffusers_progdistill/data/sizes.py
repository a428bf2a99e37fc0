"""The channels and the size of a data set, from a sample of its images."""

from PIL import Image

from ..errors import InputError
from .decode import is_gray, open_image
from .images import entries_of


def look_at(entries, places, source, count: int = 256) -> tuple[int, int]:
    """Channels of the data and the shorter side of its first image, from a sample that covers the whole set."""
    gray, size = True, None
    for entry in entries_of(entries, range(0, len(entries), max(1, len(entries) // count))):
        try:
            image = open_image(entry, places)
        except InputError:
            raise
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue
        size = size or min(image.size)
        gray = gray and is_gray(image)
    if size is None:
        raise InputError(f"{source} holds no readable image: give a folder with PNG or JPEG files")
    return (1 if gray else 3), size
