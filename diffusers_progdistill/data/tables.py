"""Data sets that are tables: parquet files, the arrow files of `datasets.save_to_disk`, and what the Hub has."""

import glob
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..options import DataOptions
from ..trust import leads_out
from .labels import Found, make_labels
from .notices import enumerate_names, explain, notice
from .splits import choose_split, read_table_splits


if TYPE_CHECKING:
    from datasets import Dataset


def find_on_hub(config: DataOptions, flag: str) -> Found:
    """The images of a split of a data set on the Hub."""
    import datasets
    from huggingface_hub import constants

    splits = _load(flag, config.dataset_name, config.dataset_config_name, token=config.hub_token, config=config)
    names = [str(name) for name in splits]
    used = choose_split(names, config.train_split, flag, "image", [len(splits[name]) for name in names])
    # Where the libraries keep what they download; each place may have been moved by a variable of its own.
    options = ("HF_CACHE_HOME", "HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH")
    caches = [config.cache_dir, constants.HF_HUB_CACHE, constants.HF_HOME]
    caches += [getattr(datasets.config, option, None) for option in options]
    places = [Path(cache) for cache in caches if cache is not None]
    return _read_table(splits[names[used[0]]], config, flag, places)


def find_in_tables(root: Path, names: list[str], config: DataOptions, flag: str) -> Found:
    """The images of one or several tables below a folder, which are one data set if they have the same columns."""
    import pyarrow.parquet as parquet

    names = [names[k] for k in choose_split(read_table_splits(names), config.train_split, flag, "table")]
    _check_columns({name: _read_features(root / name, flag) for name in names}, config, flag)
    if len(folders := sorted({Path(name).parent.as_posix() for name in names})) > 1:
        # On the Hub they may be configurations, one of which was meant.
        notice(f"{flag}: the tables of {len(folders):,} folders are read as one data set", folders)
    builder = "parquet" if names[0].lower().endswith(".parquet") else "arrow"
    if builder == "parquet" and not any(parquet.read_metadata(root / name).num_rows for name in names):
        raise InputError(f"{flag} holds no rows: give a folder of images or a parquet file")
    files = [glob.escape(str(root / name)) for name in names]
    table = _load(flag, builder, data_files=files, config=config)["train"]
    return _read_table(table, config, flag, [] if config.follow_links else [root], root / Path(names[0]).parent)


def _read_features(path: Path, flag: str) -> dict:
    """The columns of a parquet or arrow file, and what they hold, without its rows."""
    import datasets
    import pyarrow.parquet as parquet

    read = parquet.read_schema if path.suffix.lower() == ".parquet" else datasets.table.read_schema_from_file
    try:
        return datasets.Features.from_arrow_schema(read(str(path)))
    except Exception as error:  # pyarrow raises several kinds for what is one thing to a user
        raise InputError(f"{flag}: {path.name} cannot be read as a table: {explain(error)}") from error


def _check_columns(tables: dict[str, dict], config: DataOptions, flag: str) -> None:
    """Tables with other columns, or with other classes under the same numbers, are not one data set."""
    first, expected = next(iter(tables.items()))
    for option in ("image_column", "class_column"):
        column = getattr(config, option)
        if column is not None and column not in expected:
            raise InputError(f"--{option} {column} is not a column of {flag}: one of {', '.join(expected)}")
    for name, features in tables.items():
        if odd := sorted(features.keys() ^ expected.keys()):
            raise InputError(
                f"{flag} holds tables with different columns ({first} and {name} differ in {enumerate_names(odd)}):"
                " give one of them, or keep those of one data set in the folder"
            )
        classes, others = (getattr(some.get(config.class_column), "names", None) for some in (expected, features))
        if classes != others:
            raise InputError(f"--class_column {config.class_column} names other classes in {first} than in {name}")


def _load(flag: str, *names: str | None, config: DataOptions, **options: Any) -> Mapping:
    """The splits that `datasets` loads, without its bars and its log."""
    import datasets

    datasets.disable_progress_bars()
    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(logging.CRITICAL)
    try:
        return datasets.load_dataset(*names, cache_dir=config.cache_dir, **options)
    except Exception as error:  # `datasets` raises a dozen kinds for what is one thing to a user
        raise InputError(f"{flag} cannot be loaded as a data set of images: {explain(error)}") from error
    finally:
        datasets.logging.set_verbosity(verbosity)


def _read_table(
    table: "Dataset", config: DataOptions, flag: str, places: list[Path], base: Path | None = None
) -> Found:
    """The images and labels of a `datasets.Dataset`, whose images may be files beside it or in `places`."""
    import datasets

    image_column, class_column = config.image_column, config.class_column
    _check_columns({flag: table.features}, config, flag)
    try:
        table = table.cast_column(image_column, datasets.Image(decode=False))
    except Exception as error:  # pyarrow raises several kinds
        feature = table.features[image_column]
        raise InputError(f"--image_column {image_column} of {flag} holds no images, but {feature}") from error
    files = _find_named_files(table, image_column, places, base, flag)
    if class_column is None:
        return Found(files or table[image_column], None)
    place, names = f"--class_column {class_column}", getattr(table.features[class_column], "names", None)
    labels = make_labels(table[class_column][:], place, "row {}".format, names)
    if odd := [f"class {k} is label {n}" for n, k in enumerate(names or []) if k.isdecimal() and k != str(n)]:
        notice(f"{place}: the column numbers its classes itself", odd)
    rows = labels.drop_missing(place, "row {}".format)
    if len(rows) < len(table):
        table, files = table.select(rows), files and [files[row] for row in rows]
    return Found(files or table[image_column], labels)


def _find_named_files(table: "Dataset", column: str, places: list[Path], base: Path | None, flag: str) -> list | None:
    """The entries of a table that names image files, which must lie in one of the `places`; `None` of any other."""
    import pyarrow.compute as pc

    images = table.data[column]
    is_named = pc.and_(pc.is_null(pc.struct_field(images, "bytes")), pc.is_valid(pc.struct_field(images, "path")))
    if not pc.any(is_named).as_py():
        return None
    entries = table[column][:]
    for number, is_file in enumerate(is_named.to_pylist()):
        if is_file:
            # An absolute path stays as it is.
            path = Path(base or "", entries[number]["path"])
            # A table of unknown origin may name any file of this machine.
            if places and all(leads_out(path, place) for place in places):
                where = f"row {number} names {path.name}, which leads out of the folder"
                raise InputError(f"{flag}: {where}; put the file itself there")
            entries[number] = {"path": str(path), "bytes": None}
    return entries
