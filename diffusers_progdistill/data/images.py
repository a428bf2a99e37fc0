"""Images and labels by number, kept in memory or read anew in each epoch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..errors import DiskError, InputError
from .decode import PLAIN, WHITE, NoImage, Reading, list_entries, name_entry, quiet_pillow, read_picture
from .findings import MISSING, REPLACED, SKIPPED, Findings
from .notices import explain
from .sizes import to_array


# Decoded images are kept in memory up to this many bytes; a larger data set is decoded anew in each epoch.
MEMORY_LIMIT = 2 * 1024**3
# Images of such a data set that are read before the training, for what there is to say.
SAMPLED = 64
# So many unreadable images in a row mean that the data set is gone.
MOST_IN_A_ROW = 1000


class Batch(NamedTuple):
    """Images as they are read anew."""

    # `uint8`; `None` if so many in a row cannot be read that the data set must be gone.
    images: torch.Tensor | None
    labels: torch.Tensor | None
    # Number, name and reason of those whose places others took.
    failed: list[tuple[int, str, str]]


class ImageData(Dataset):
    """
    Images and labels by number. What cannot be read is skipped, whatever is raised: in memory before the training; of
    a larger data set the next readable image takes its place, so that the order depends on the seed and the files.
    """

    def __init__(
        self,
        entries: Sequence,
        labels: Sequence[int] | None,
        channels: int,
        resolution: int,
        class_names: list[str] | None = None,
        reading: Reading = PLAIN,
    ) -> None:
        self._reading, self._entries, self._images = reading, entries, None
        self.channels, self.resolution, self.class_names = channels, resolution, class_names
        quiet_pillow()
        limit = MEMORY_LIMIT if reading.memory_limit is None else reading.memory_limit
        numbers, keeps_all = range(len(entries)), len(entries) * channels * resolution**2 <= limit
        if not keeps_all:
            numbers = range(0, len(entries), max(1, len(entries) // SAMPLED))[:SAMPLED]
        self.findings = Findings(
            all=f"{len(numbers):,}{'' if keeps_all else ' sampled'}",
            size=f"{resolution}x{resolution}",
            fit="the middle is cropped" if reading.center_crop else "they are squeezed to a square",
            ground="white" if reading.background == WHITE else f"the colour {reading.background}",
        )
        readable = self._read_first(numbers, keeps_all)
        self.findings.say()
        if keeps_all and not readable:
            raise InputError(f"{reading.source} holds no readable image: give a folder with PNG or JPEG files")
        self.labels = None if labels is None else torch.as_tensor(labels, dtype=torch.long)
        if self.labels is not None and keeps_all:
            self.labels = self.labels[readable]
        self.num_classes = None if labels is None else len(class_names or []) or int(self.labels.max()) + 1

    def _read_first(self, numbers: range, keeps_all: bool) -> list[int]:
        """Read images before the training, to keep them or for what there is to say; the numbers of the readable."""
        shape = (len(numbers) if keeps_all else 0, self.channels, self.resolution, self.resolution)
        images, readable = np.empty(shape, dtype=np.uint8), []
        bar = tqdm(numbers, "reading images", disable=len(numbers) < 5000)
        for number, entry in zip(bar, list_entries(self._entries, numbers)):
            name = name_entry(entry, number)
            try:
                array, kinds = self._decode(entry)
            except NoImage:
                self.findings.note(MISSING, number, name)
                continue
            except Exception as error:  # whatever it is, it concerns this entry alone
                self.findings.note(SKIPPED, number, name, explain(error))
                continue
            for kind in kinds:
                self.findings.note(kind, number, name)
            if keeps_all:
                images[len(readable)] = array
            readable.append(number)
        if keeps_all:
            self._images = torch.from_numpy(images[: len(readable)])
        return readable

    def _decode(self, entry: object) -> tuple[np.ndarray, tuple[str, ...]]:
        """An entry as it is trained on, and the kinds of findings that apply to it."""
        if isinstance(entry, np.ndarray) and entry.dtype == np.uint8:
            if entry.shape == (self.channels, self.resolution, self.resolution):
                return entry, ()
        picture = read_picture(entry, self._reading)
        width, height = picture.image.size
        applies = {
            "gray": picture.image.mode != "L" and self.channels == 1,
            "enlarged": min(width, height) < self.resolution,
            "cropped": width != height,
        }
        kinds = (*picture.kinds, *(kind for kind, is_so in applies.items() if is_so))
        return to_array(picture.image, self.channels, self.resolution, self._reading.center_crop), kinds

    @property
    def known_labels(self) -> list[int] | None:
        """The labels that occur, sorted; `None` without labels."""
        return None if self.labels is None else self.labels.unique().tolist()

    @property
    def is_in_memory(self) -> bool:
        """Whether all images are decoded and kept; otherwise they are read anew whenever they are asked for."""
        return self._images is not None

    @property
    def num_skipped(self) -> int:
        """Entries that were left out before the training."""
        return len(self._entries) - len(self)

    def __len__(self) -> int:
        return len(self._images if self.is_in_memory else self._entries)

    def __getitems__(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One batch: `uint8` images of shape `(batch_size, channels, height, width)`, and labels or `None`."""
        return self.take(self[numbers])

    def __getitem__(self, numbers: Sequence[int]) -> Batch:
        """One batch, with what could not be read of it. Only this is called in processes that read ahead."""
        if self.is_in_memory:
            index = torch.as_tensor(numbers)
            return Batch(self._images[index], None if self.labels is None else self.labels[index], [])
        quiet_pillow()
        rows, used, failed = [], [], []
        for number, entry in zip(numbers, list_entries(self._entries, numbers)):
            array, in_a_row = None, 0
            while array is None:
                try:
                    array, _ = self._decode(entry)
                except Exception as error:  # whatever it is, it concerns this entry alone
                    failed.append((number, name_entry(entry, number), explain(error)))
                    in_a_row += 1
                    if in_a_row == MOST_IN_A_ROW or in_a_row == len(self):
                        return Batch(None, None, failed[-1:])
                    number = (number + 1) % len(self)
                    entry = next(list_entries(self._entries, [number]))
            rows.append(array)
            used.append(number)
        labels = None if self.labels is None else self.labels[torch.as_tensor(used)]
        return Batch(torch.from_numpy(np.stack(rows)), labels, failed)

    def take(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The images and labels of a batch; what could not be read of it is counted, and named where it is new."""
        if batch.images is None:
            _, name, reason = batch.failed[-1]
            raise DiskError(f"{MOST_IN_A_ROW:,} images in a row could not be read, the last of them {name} ({reason})")
        for number, name, reason in batch.failed:
            self.findings.note(REPLACED, number, name, reason, say=True)
        return batch.images, batch.labels

    def all_images(self) -> torch.Tensor:
        """Every image as `uint8`, shape `(num_images, channels, height, width)`."""
        return self._images if self.is_in_memory else self.__getitems__(range(len(self)))[0]
