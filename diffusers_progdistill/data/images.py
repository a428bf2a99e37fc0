"""Images and labels by number, kept in memory or read anew in each epoch."""

from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..errors import DiskError, InputError
from .decode import PLAIN, NoImage, quiet_pillow, read_picture
from .entries import list_entries, name_of
from .findings import MISSING, REPLACED, SKIPPED, Findings, reason_of
from .sizes import to_array


# Decoded images are kept in memory up to this many bytes; a larger data set is decoded anew in each epoch.
MEMORY_LIMIT = 2 * 1024**3
# Images of such a data set that are read before the training, for what there is to say.
SAMPLED = 64
# So many unreadable images in a row mean that the data set is gone.
MOST_IN_A_ROW = 1000


class Batch(NamedTuple):
    """
    Images as they are read anew.

    Attributes:
        images (`torch.Tensor` or `None`): `uint8`, of shape `(batch_size, channels, height, width)`; `None` if so many
            in a row cannot be read that the data set must be gone.
        labels (`torch.Tensor` or `None`): Their labels.
        failed (`list[tuple[int, str, str]]`): Number, name and reason of those whose places others took.
    """

    images: torch.Tensor | None
    labels: torch.Tensor | None
    failed: list[tuple[int, str, str]]


class ImageData(Dataset):
    """
    Images and labels by number. What cannot be read is skipped, whatever is raised.

    In memory, unreadable images are left out before the training. Of a larger data set each takes the next readable
    image's place when it is drawn: the order stays a function of the seed and of the files.

    Args:
        entries (`list` or `datasets.Column`): Files, bytes, arrays or pictures, see [`~data.decode.open_image`].
        labels (`list[int]`, *optional*): A label for each.
        channels (`int`): 1 for grayscale data, 3 for colour.
        resolution (`int`): Height and width that the images get.
        class_names (`list[str]`, *optional*): Names of the classes.
        reading ([`Reading`], *optional*): How entries become pictures.

    Attributes:
        channels (`int`): 1 for grayscale data, 3 for colour.
        resolution (`int`): Height and width of the images.
        num_classes (`int` or `None`): Number of classes, if there are labels.
        class_names (`list[str]` or `None`): Their names, if the data set has them.
        findings ([`Findings`]): What was skipped or changed.

    Raises:
        [`InputError`]: If there is no readable image.
    """

    def __init__(self, entries, labels, channels: int, resolution: int, class_names=None, reading=PLAIN):
        self._reading, self._entries = reading, entries
        self.channels, self.resolution, self.class_names = channels, resolution, class_names
        quiet_pillow()
        readable, self._images = range(len(entries)), None
        limit = MEMORY_LIMIT if reading.memory_limit is None else reading.memory_limit
        if len(entries) * channels * resolution**2 <= limit:
            self.findings = Findings(f"{len(entries):,}", self._words())
            readable, self._images = self._read_all()
        else:
            sample = range(0, len(entries), max(1, len(entries) // SAMPLED))[:SAMPLED]
            self.findings = Findings(f"{len(sample):,} sampled", self._words())
            for number, entry in zip(sample, list_entries(entries, sample)):
                self._try_decode(entry, number)
        self.findings.say()
        self._numbers = readable
        self.labels = None if labels is None else torch.as_tensor(labels, dtype=torch.long)[list(readable)]
        self.num_classes = None if labels is None else len(class_names or []) or int(self.labels.max()) + 1

    @property
    def known_labels(self) -> list[int] | None:
        """The labels that occur, sorted; `None` without labels."""
        return None if self.labels is None else self.labels.unique().tolist()

    @property
    def is_in_memory(self) -> bool:
        """Whether all images are decoded and kept; otherwise they are read anew whenever they are asked for."""
        return self._images is not None

    def _words(self) -> dict[str, str]:
        fit = "the middle is cropped" if self._reading.center_crop else "they are squeezed to a square"
        ground = "white" if self._reading.background == (255, 255, 255) else f"the colour {self._reading.background}"
        return {"size": f"{self.resolution}x{self.resolution}", "fit": fit, "ground": ground}

    def _read_all(self) -> tuple[list[int], torch.Tensor]:
        count = len(self._entries)
        images = np.empty((count, self.channels, self.resolution, self.resolution), dtype=np.uint8)
        readable = []
        bar = tqdm(total=count, desc="reading images", disable=count < 5000)
        for number, entry in enumerate(list_entries(self._entries, range(count))):
            bar.update()
            array = self._try_decode(entry, number)
            if array is not None:
                images[len(readable)] = array
                readable.append(number)
        bar.close()
        if not readable:
            self.findings.say()
            raise InputError(f"{self._reading.source} holds no readable image: give a folder with PNG or JPEG files")
        return readable, torch.from_numpy(images[: len(readable)])

    def _try_decode(self, entry, number: int) -> np.ndarray | None:
        """An entry as it is trained on, or `None`; what there is to say of it is noted."""
        try:
            array, kinds = self._decode(entry)
        except NoImage:
            return self.findings.note(MISSING, number, name_of(entry, number))
        except Exception as error:  # whatever it is, it concerns this entry alone
            return self.findings.note(SKIPPED, number, name_of(entry, number), reason_of(error))
        for kind in kinds:
            self.findings.note(kind, number, name_of(entry, number))
        return array

    def _decode(self, entry) -> tuple[np.ndarray, tuple[str, ...]]:
        if isinstance(entry, Exception):
            raise entry
        if isinstance(entry, np.ndarray) and entry.shape == (self.channels, self.resolution, self.resolution):
            if entry.dtype == np.uint8:
                return entry, ()
        picture = read_picture(entry, self._reading)
        (width, height), kinds = picture.image.size, picture.kinds
        if picture.image.mode != "L" and self.channels == 1:
            kinds = (*kinds, "gray")
        if min(width, height) < self.resolution:
            kinds = (*kinds, "enlarged")
        if width != height:
            kinds = (*kinds, "cropped")
        return to_array(picture.image, self.channels, self.resolution, self._reading.center_crop), kinds

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def num_skipped(self) -> int:
        """Entries that were left out before the training."""
        return len(self._entries) - len(self)

    def __getitems__(self, numbers: list[int]):
        """One batch: `uint8` images of shape `(batch_size, channels, height, width)`, and labels or `None`."""
        return self.noted(self.read(numbers))

    def read(self, numbers: list[int]) -> Batch:
        """One batch, with what could not be read of it. Only this is called in processes that read ahead."""
        if self._images is None:
            return self._read_anew(list(numbers))
        index = torch.as_tensor(numbers)
        return Batch(self._images[index], None if self.labels is None else self.labels[index], [])

    def noted(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        The images and labels of a batch; what could not be read of it is counted, and named where it is new.

        Raises:
            [`DiskError`]: If the data set is gone.
        """
        if batch.images is None:
            _, name, reason = batch.failed[-1]
            raise DiskError(f"{MOST_IN_A_ROW:,} images in a row could not be read, the last of them {name} ({reason})")
        for number, name, reason in batch.failed:
            self.findings.note(REPLACED, number, name, reason, say=True)
        return batch.images, batch.labels

    def _read_anew(self, numbers: list[int]) -> Batch:
        quiet_pillow()
        rows, used, failed = [], [], []
        for number, entry in zip(numbers, list_entries(self._entries, numbers)):
            array, in_a_row = None, 0
            while array is None:
                try:
                    array, _ = self._decode(entry)
                except Exception as error:  # whatever it is, it concerns this entry alone
                    failed.append((number, name_of(entry, number), reason_of(error)))
                    in_a_row += 1
                    if in_a_row == MOST_IN_A_ROW or in_a_row == len(self):
                        return Batch(None, None, failed[-1:])
                    number = (number + 1) % len(self)
                    entry = next(list_entries(self._entries, [number]))
            rows.append(array)
            used.append(number)
        labels = None if self.labels is None else self.labels[torch.as_tensor(used)]
        return Batch(torch.from_numpy(np.stack(rows)), labels, failed)

    def all_images(self) -> torch.Tensor:
        """Every image as `uint8`, shape `(num_images, channels, height, width)`."""
        return self._images if self._images is not None else self.__getitems__(list(range(len(self))))[0]
