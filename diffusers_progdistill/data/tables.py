"""Data sets that lie in local tables: parquet files and the arrow files of `datasets.save_to_disk`."""

import contextlib
import glob
import logging
from pathlib import Path

from ..errors import InputError, describe_reason
from ..trust import leads_out
from . import formats
from .found import Found, labelled_rows
from .labels import make_labels
from .notices import counted, named, notice
from .splits import choose_split, splits_of_tables


def find_in_tables(root: Path, names: list[str], config, flag: str) -> Found:
    """
    The images of one or several tables, which are one data set if they have the same columns.

    Args:
        root (`Path`), names (`list[str]`): Their folder, and where in it they are.
        config ([`TrainingConfig`]): The data set options.
        flag (`str`): What a message calls the data set.

    Raises:
        [`InputError`]: If they cannot be read, differ, have no such column, or name files elsewhere.
    """
    schemas = {name: read_schema(root / name, flag) for name in names}
    names = _with_images(schemas, config.image_column, flag)
    used, left = choose_split(splits_of_tables(names), config.train_split, flag, "table")
    if left:
        notice(left)
    names = [name for name, is_used in zip(names, used) if is_used and has_rows(root / name)]
    if not names:
        raise InputError(f"{flag} holds no rows: give a folder of images or a parquet file")
    _check_columns({name: schemas[name] for name in names}, config.class_column, flag)
    if len(folders := sorted({Path(name).parent.as_posix() for name in names})) > 1:
        # On the Hub they may be configurations, one of which was meant.
        notice(f"{flag}: the tables of {len(folders):,} folders are read as one data set", folders)
    table = _load([root / name for name in names], config, flag)
    places = [] if config.follow_links else [root]
    return found_in_table(table, config, flag, places, root / Path(names[0]).parent)


def found_in_table(table, config, flag: str, places: list[Path], base: Path | None = None) -> Found:
    """The images and labels of a `datasets.Dataset`."""
    import datasets

    for option, column in (("image_column", config.image_column), ("class_column", config.class_column)):
        if column is not None and column not in table.column_names:
            raise InputError(f"--{option} {column} is not a column of {flag}: one of {', '.join(table.column_names)}")
    try:
        table = table.cast_column(config.image_column, datasets.Image(decode=False))
    except Exception as error:  # pyarrow raises several kinds
        feature = table.features[config.image_column]
        raise InputError(f"--image_column {config.image_column} of {flag} holds no images, but {feature}") from error
    labels, place = None, f"--class_column {config.class_column}"
    if config.class_column is not None:
        names = getattr(table.features[config.class_column], "names", None)
        labels = make_labels(table[config.class_column][:], place, _row_name, names)
        if odd := [f"class {name} is label {k}" for k, name in enumerate(names or []) if _is_other(name, k)]:
            notice(f"{place}: the column numbers its classes itself", odd)
    files = _named_files(table, config.image_column, places, base, flag)
    entries, rows = files or table[config.image_column], labelled_rows(labels, place, _row_name)
    if rows is not None:
        labels.values = [labels.values[row] for row in rows]
        entries = [files[row] for row in rows] if files else table.select(rows)[config.image_column]
    return Found(entries, labels, _row_name)


def _is_other(name: str, label: int) -> bool:
    """Whether a class is called by another number than its own."""
    return name.isdecimal() and name != str(label)


def _row_name(number: int) -> str:
    return f"row {number}"


def read_schema(path: Path, flag: str):
    """
    The columns of a parquet or arrow file.

    Raises:
        [`InputError`]: If it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        if formats.read_ending(path.name) == ".parquet":
            return parquet.read_schema(path)
        with pa.OSFile(str(path)) as file:
            try:
                return pa.ipc.open_stream(file).schema
            except pa.ArrowInvalid:
                file.seek(0)
                return pa.ipc.open_file(file).schema
    except Exception as error:  # pyarrow raises several kinds for what is one thing to a user
        raise InputError(f"{flag}: {path.name} cannot be read as a table: {describe_reason(error)}") from error


def has_rows(path: Path) -> bool:
    """Whether a table holds anything; an arrow file is taken to."""
    import pyarrow.parquet as parquet

    return formats.read_ending(path.name) != ".parquet" or parquet.read_metadata(path).num_rows > 0


def _with_images(schemas: dict, image_column: str, flag: str) -> list[str]:
    """The tables with the column of the images; others that lie beside them are none of the data."""
    names = [name for name, schema in schemas.items() if image_column in schema.names]
    if not names:
        columns = list(next(iter(schemas.values())).names)
        raise InputError(f"--image_column {image_column} is not a column of {flag}: one of {named(columns, 20)}")
    if others := [name for name in schemas if name not in names]:
        notice(f"{flag}: {counted(len(others), 'table')} without a column {image_column} not read", others)
    return names


def _check_columns(schemas: dict, class_column: str | None, flag: str):
    """Tables with other columns, or with other classes under the same numbers, are not one data set."""
    import datasets

    (first, expected), *others = schemas.items()
    for name, schema in others:
        if set(schema.names) != set(expected.names):
            odd = sorted(set(schema.names) ^ set(expected.names))
            raise InputError(
                f"{flag} holds tables with different columns ({first} and {name} differ in {named(odd)}): give one of"
                " them, or keep those of one data set in the folder"
            )
        if class_column in schema.names:
            names = [
                getattr(datasets.Features.from_arrow_schema(s)[class_column], "names", None)
                for s in (expected, schema)
            ]
            if names[0] != names[1]:
                raise InputError(f"--class_column {class_column} names other classes in {first} than in {name}")


def _load(paths: list[Path], config, flag: str):
    import datasets

    builder = "parquet" if formats.read_ending(paths[0].name) == ".parquet" else "arrow"
    files = [glob.escape(str(path)) for path in paths]
    try:
        with quiet_datasets():
            return datasets.load_dataset(builder, data_files=files, split="train", cache_dir=config.cache_dir)
    except Exception as error:  # `datasets` raises a dozen kinds for what is one thing to a user
        raise InputError(f"{flag} cannot be loaded as a data set of images: {reason_of(error)}") from error


@contextlib.contextmanager
def quiet_datasets():
    """Without the bars and the log of `datasets`: what it would log is in the line that refuses."""
    import datasets

    datasets.disable_progress_bars()
    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)


def reason_of(error: Exception) -> str:
    """What was the matter in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    return describe_reason(error)


def _named_files(table, image_column: str, places: list[Path], base: Path | None, flag: str) -> list | None:
    """
    The entries of a table that holds the names of image files, with the files beside it; `None` if it holds the images
    themselves. A table of unknown origin may name any file of this machine: they must lie in one of the `places`.
    """
    import pyarrow.compute as pc

    column = table.with_format("arrow")[image_column] if table._indices is not None else table.data[image_column]
    is_named = pc.and_(pc.is_null(pc.struct_field(column, "bytes")), pc.is_valid(pc.struct_field(column, "path")))
    if not pc.any(is_named).as_py():
        return None
    entries = table[image_column][:]
    for number, entry in enumerate(entries):
        if entry is None or entry["bytes"] is not None or entry["path"] is None:
            continue
        path = Path(entry["path"])
        path = path if base is None or path.is_absolute() else base / path
        if places and all(leads_out(path, place) for place in places):
            raise InputError(
                f"{flag}: row {number} names {path.name}, which leads out of the folder; put the file itself there"
            )
        entries[number] = {"path": str(path), "bytes": None}
    return entries
