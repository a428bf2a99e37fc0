"""Data sets that lie in a local folder or file: images first, else tables."""

from pathlib import Path

from ..errors import InputError
from ..options import DataOptions
from .files import classify, describe_files, list_folder, say_what_is_left
from .labels import Found, Labels, make_labels, read_class_folders
from .metadata import Metadata, read_metadata
from .notices import count, enumerate_names, notice
from .splits import choose_split, find_split_level, read_split
from .tables import find_in_tables


RIGHT = "give a folder of images or a parquet file"
UNPACK = "unpack the archive, and give the folder"


def find_local(path: Path, config: DataOptions, flag: str) -> Found:
    """The images of a folder or of a table; what there is must fit the options."""
    if not path.exists():
        raise InputError(f"{flag} does not exist: {RIGHT}")
    if path.is_file():
        kind = classify(path.name.lstrip("."))
        if kind != "table":
            raise InputError(f"{flag} is an archive: {UNPACK}" if kind == "archive" else f"{flag} is a file: {RIGHT}")
        return find_in_tables(path.parent, [path.name], config, flag)
    files = list_folder(path, flag, config.follow_links)
    tables = files.get("table") or files.get("metadata", [])
    # All tables of the kind that there is more reason to read.
    parquet = [name for name in tables if name.lower().endswith(".parquet")]
    if "image" in files:
        say_what_is_left(files, flag)
        return _find_images(path, files, config, flag)
    if parquet or "table" in files:
        say_what_is_left(files, flag)
        return find_in_tables(path, parquet or tables, config, flag)
    if archives := files.get("archive"):
        raise InputError(f"{flag} holds no images, but {enumerate_names(archives)}: {UNPACK}")
    inside = f"it has {describe_files(files)} files" if files else "it is empty"
    raise InputError(f"{flag} holds no readable image ({inside}): give a folder with PNG or JPEG files")


def _find_images(root: Path, files: dict[str, list[str]], config: DataOptions, flag: str) -> Found:
    """The images of a folder that belong to the split, with a row of the metadata if there are any."""
    metadata = read_metadata(root, files.get("metadata", []), files["image"], flag)
    names, level = _choose_images(files["image"], config.train_split, flag)
    if "metadata" in files:
        without, of = [name for name in names if name not in metadata.rows], count(len(names), "image")
        names = [name for name in names if name in metadata.rows]
        if not names:
            raise InputError(f"{flag}: {enumerate_names(files['metadata'])} names none of the {of}")
        if without:
            notice(f"{flag}: left out {len(without):,} of {of} that have no row in the metadata", without)
    labels = None
    if config.class_column is not None:
        labels = _read_labels(names, level, metadata, config.class_column, flag)
        names = [names[row] for row in labels.drop_missing(f"--class_column {config.class_column}", names.__getitem__)]
    return Found([str(root / name) for name in names], labels)


def _choose_images(names: list[str], wanted: str | None, flag: str) -> tuple[list[str], int | None]:
    """The images of the split, and the level of the folders that are splits."""
    level = find_split_level(names)
    called = sorted(folder for folder in {name.split("/")[0] for name in names if "/" in name} if read_split(folder))
    if level is None and called and wanted is not None:
        # Who asks for a split means these folders, and may mean one of another name beside them.
        level = 0
    elif level is None and any(read_split(folder) != "train" for folder in called):
        text = f"{flag}: {enumerate_names(called, 5)} not taken for splits, since not all images lie in such folders"
        notice(f"{text} or none of them is train: all images are used (--train_split {called[-1]} uses one)")
    splits: list[str | None] = [None] * len(names)
    if level is not None:
        paths = [name.split("/")[:-1] for name in names]
        folders = [path[level] if len(path) > level else None for path in paths]
        splits = [folder and (read_split(folder) or folder) for folder in folders]
    return [names[k] for k in choose_split(splits, wanted, flag, "image")], level


def _read_labels(names: list[str], level: int | None, metadata: Metadata, column: str, flag: str) -> Labels:
    """The labels of a column of the metadata, or of the class folders, which are the column `label`."""
    place = f"--class_column {column}"
    columns = list(dict.fromkeys(column for row in metadata.rows.values() for column in row))
    if column in columns:
        values = [metadata.rows[name].get(column) for name in names]
        return make_labels(values, place, names.__getitem__, metadata.class_names.get(column))
    if column != "label":
        has = f"one of {', '.join(columns)}" if columns else "it has no metadata"
        raise InputError(f"{place} is not a column of {flag}: {has}; `label` stands for the names of class folders")
    classes = read_class_folders(names, level, f"{place} of {flag}")
    return make_labels(classes, place, names.__getitem__, are_folders=True)
