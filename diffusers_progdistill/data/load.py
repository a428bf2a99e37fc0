"""The training images that a config names, from a local folder, a parquet file or the Hub."""

from pathlib import Path

from ..errors import InputError
from .decode import Reading, color_of
from .digits import load_digits
from .images import ImageData
from .sizes import look_at


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
    background = color_of(config.background_color)
    if config.dataset_name == "digits":
        data = load_digits(config.resolution or resolution or 8, config.center_crop)
    else:
        data = _load_with_datasets(config, resolution, background)
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


def _load_with_datasets(config, resolution, background) -> ImageData:
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
    reading = Reading(source, tuple(places), background, config.center_crop)
    look = look_at(entries, reading)
    return ImageData(entries, labels, look.channels, config.resolution or resolution or look.size, names, reading)


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
