"""Training images by Hub name, local folder or parquet file, as bytes of one resolution; and their order."""

import io
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm

from .errors import InputError
from .trust import MOST_PIXELS, leads_out


logger = logging.getLogger(__name__)

# Decoded images are kept in memory up to this many bytes; a larger data set is decoded anew in each epoch.
MEMORY_LIMIT = 2 * 1024**3
# Entries that are looked up at once: their files, not yet decoded, must fit beside that.
READ_AT_ONCE = 50


def to_array(image: Image.Image, channels: int, resolution: int, center_crop: bool) -> np.ndarray:
    """An image as bytes of shape `(channels, resolution, resolution)`: upright, cropped or squeezed, antialiased."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16-bit grayscale: PIL's own conversion clips at 255.
        image = Image.fromarray((np.asarray(image).astype(np.float32) / 257).clip(0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    size = (resolution, resolution)
    if image.size != size:
        fit = ImageOps.fit if center_crop else Image.Image.resize
        image = fit(image, size, Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def is_gray(image: Image.Image) -> bool:
    """Whether the image file itself says that it is grayscale."""
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def open_image(entry, places: list[Path]) -> Image.Image:
    """Open what a `datasets` image column holds undecoded: bytes, or the path of a file in one of the `places`."""
    if isinstance(entry, Image.Image):
        return entry
    if entry.get("bytes") is None and all(leads_out(Path(entry["path"]), place) for place in places):
        name = Path(entry["path"]).name
        raise InputError(f"--train_data_dir: {name} leads out of the folder; put the file itself there")
    image = Image.open(entry["path"] if entry.get("bytes") is None else io.BytesIO(entry["bytes"]))
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width * image.height:,} pixels, more than {MOST_PIXELS:,}")
    return image


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


def load_digits(resolution: int = 8, center_crop: bool = True) -> ImageData:
    """The embedded data set: scikit-learn's 1,797 scans of handwritten digits, 8x8 pixels of 17 gray levels."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError:
        raise InputError(
            "--dataset_name digits needs scikit-learn: `pip install diffusers-progdistill[demo]`"
        ) from None
    raw = load()
    arrays = np.round(raw.images * (255 / 16)).astype(np.uint8)
    names = [str(d) for d in range(10)]
    entries = [Image.fromarray(a) for a in arrays] if resolution != 8 else list(arrays[:, None])
    return ImageData(entries, raw.target, 1, resolution, center_crop, names)


def load_data(config, channels: int | None = None, resolution: int | None = None) -> ImageData:
    """
    Load the training images that a config names.

    Args:
        config ([`TrainingConfig`]): Its data set options.
        channels (`int`, *optional*): What the UNet takes; the data must have as many.
        resolution (`int`, *optional*): Used where the config names none; else the images' own size.

    Raises:
        [`InputError`]: If there is no such data set, it has no readable image, or its channels differ.
    """
    if config.dataset_name == "digits":
        data = load_digits(config.resolution or resolution or 8, config.center_crop)
    else:
        data = _load_with_datasets(config, resolution)
    if channels is not None and data.channels != channels:
        kind = "grayscale images (1 channel)" if data.channels == 1 else "colour images (3 channels)"
        raise InputError(
            f"{_source(config)} holds {kind}, but the UNet has in_channels={channels}: convert the images, or use a"
            f" model with in_channels={data.channels}"
        )
    return data


def _source(config) -> str:
    if config.train_data_dir is not None:
        return f"--train_data_dir {config.train_data_dir}"
    return f"--dataset_name {config.dataset_name}"


def _load_with_datasets(config, resolution) -> ImageData:
    import datasets

    source = _source(config)
    datasets.disable_progress_bars()
    table = _open_table(config, datasets)
    for name, column in (("image_column", config.image_column), ("class_column", config.class_column)):
        if column is not None and column not in table.column_names:
            raise InputError(f"--{name} {column} is not a column of {source}: one of {', '.join(table.column_names)}")
    labels = names = None
    if config.class_column is not None:
        feature = table.features[config.class_column]
        values = table[config.class_column]
        names = list(getattr(feature, "names", None) or sorted({str(v) for v in values}))
        labels = [int(v) if hasattr(feature, "names") else names.index(str(v)) for v in values]
    entries = table.cast_column(config.image_column, datasets.Image(decode=False))[config.image_column]
    places = _places(config, datasets)
    channels, size = _look_at(entries, places, source)
    resolution = config.resolution or resolution or size
    return ImageData(entries, labels, channels, resolution, config.center_crop, names, source, places)


def _open_table(config, datasets):
    path = None if config.train_data_dir is None else Path(config.train_data_dir)
    if path is not None and not path.exists():
        raise InputError(f"--train_data_dir {path} does not exist: give a folder of images or a parquet file")
    options = {"split": "train", "cache_dir": config.cache_dir}
    try:
        if path is None:
            return datasets.load_dataset(
                config.dataset_name, config.dataset_config_name, token=config.hub_token, **options
            )
        parquet = [path] if path.is_file() else sorted(path.glob("**/*.parquet"))
        if parquet:
            return datasets.load_dataset("parquet", data_files=[str(p) for p in parquet], **options)
        return datasets.load_dataset("imagefolder", data_dir=str(path), **options)
    except Exception as error:  # `datasets` raises a dozen kinds for what is one thing to a user
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = str(cause).split("\n")[0][:200]
        raise InputError(f"{_source(config)} cannot be loaded as a data set of images: {reason}") from error


def _places(config, datasets) -> list[Path]:
    """Where image files may lie: the folder that was given, or the caches of the Hub's clients."""
    if config.train_data_dir is not None:
        path = Path(config.train_data_dir)
        return [path if path.is_dir() else path.parent]
    caches = [config.cache_dir, datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE]
    own = [config.dataset_name] if Path(config.dataset_name).is_dir() else []
    return [Path(p) for p in [*caches, *own] if p is not None]


def _look_at(entries, places, source, count: int = 256) -> tuple[int, int]:
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


class GlobalOrder(Sampler):
    """
    The order of the data as a function of (seed, stage, epoch) alone, sliced for one process.

    Each update takes the next `global_batch` images of the epoch's permutation; an incomplete last batch is dropped.
    Part m of process r takes slice m * world + r: any split of the same global batch trains on the same images.
    """

    def __init__(self, num_images, global_batch, parts, rank, world, seed, stage, updates, first_update=0):
        self.num_images, self.global_batch, self.parts = num_images, global_batch, parts
        self.rank, self.world, self.seed, self.stage = rank, world, seed, stage
        self.updates, self.first_update = updates, first_update

    def __len__(self):
        return (self.updates - self.first_update) * self.parts

    def __iter__(self):
        per_epoch = self.num_images // self.global_batch
        size = self.global_batch // (self.parts * self.world)
        epoch = None
        for update in range(self.first_update, self.updates):
            if update // per_epoch != epoch:
                epoch = update // per_epoch
                order = np.random.default_rng([self.seed, self.stage, epoch]).permutation(self.num_images)
            start = (update % per_epoch) * self.global_batch
            for part in range(self.parts):
                offset = start + (part * self.world + self.rank) * size
                yield order[offset : offset + size].tolist()


def make_loader(data: ImageData, order: GlobalOrder, num_workers: int) -> DataLoader:
    """Batches of `data` in the given order, read ahead by worker processes if there are any."""
    return DataLoader(
        data,
        batch_sampler=order,
        num_workers=num_workers,
        collate_fn=_as_is,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if num_workers else None,
    )


def _as_is(batch):
    return batch
