"""Images and labels by number, kept in memory or read anew in each epoch."""

import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..errors import InputError
from .decode import open_image, to_array


logger = logging.getLogger(__name__)

# Decoded images are kept in memory up to this many bytes; a larger data set is decoded anew in each epoch.
MEMORY_LIMIT = 2 * 1024**3
# Entries that are looked up at once: their files, not yet decoded, must fit beside that.
READ_AT_ONCE = 50


def entries_of(column, numbers):
    """
    Entries of a column or list one after the other. They are looked up many at once: `datasets` takes longer to look a
    single one up than a small image takes to decode.
    """
    for first in range(0, len(numbers), READ_AT_ONCE):
        some = list(numbers[first : first + READ_AT_ONCE])
        yield from [column[n] for n in some] if isinstance(column, list) else column[some]


class ImageData(Dataset):
    """
    Images and labels by number.

    Attributes:
        channels (`int`): 1 for grayscale data, 3 for colour.
        resolution (`int`): Height and width of the images.
        num_classes (`int` or `None`): Number of classes, if there are labels.
        class_names (`list[str]` or `None`): Their names, if the data set has them.
    """

    def __init__(
        self,
        entries,
        labels,
        channels,
        resolution,
        center_crop=True,
        class_names=None,
        source="--dataset_name",
        places=(),
    ):
        self._places = places
        self.channels, self.resolution, self.center_crop = channels, resolution, center_crop
        self.class_names, self._entries = class_names, entries
        readable, images = list(range(len(entries))), None
        if len(entries) * channels * resolution**2 <= MEMORY_LIMIT:
            readable, images = self._decode_all(source)
        self._images, self._numbers = images, readable
        self.labels = None if labels is None else torch.as_tensor(labels, dtype=torch.long)[readable]
        self.num_classes = None if labels is None else len(class_names or []) or int(self.labels.max()) + 1

    def _decode_all(self, source):
        rows, readable, failed = [], [], []
        bar = tqdm(total=len(self._entries), desc="reading images", disable=len(self._entries) < 5000)
        for number, entry in enumerate(entries_of(self._entries, range(len(self._entries)))):
            bar.update()
            try:
                rows.append(self._decode(entry))
                readable.append(number)
            except InputError:
                raise
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                failed.append((number, error))
        bar.close()
        for number, error in failed[:10]:
            logger.warning("skipped unreadable image %s: %s", self._name(number), error)
        if failed:
            logger.warning("%d of %d images could not be read and were skipped", len(failed), len(self._entries))
        if not rows:
            raise InputError(f"{source} holds no readable image: give a folder with PNG or JPEG files")
        return readable, torch.from_numpy(np.stack(rows))

    def _name(self, number):
        entry = self._entries[number]
        path = entry.get("path") if isinstance(entry, dict) else None
        return Path(path).name if path else f"number {number}"

    def _decode(self, entry) -> np.ndarray:
        if isinstance(entry, np.ndarray):
            return entry
        return to_array(open_image(entry, self._places), self.channels, self.resolution, self.center_crop)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitems__(self, numbers: list[int]):
        """One batch: `uint8` images of shape `(batch_size, channels, height, width)`, and labels or `None`."""
        index = torch.as_tensor(numbers)
        labels = None if self.labels is None else self.labels[index]
        if self._images is not None:
            return self._images[index], labels
        entries = entries_of(self._entries, [self._numbers[n] for n in numbers])
        return torch.from_numpy(np.stack([self._decode(entry) for entry in entries])), labels

    def all_images(self) -> torch.Tensor:
        """Every image as `uint8`, shape `(num_images, channels, height, width)`."""
        return self._images if self._images is not None else self.__getitems__(range(len(self)))[0]
