"""Data sets that lie in a local folder or file: images first, else tables."""

from pathlib import Path

from ..errors import InputError
from . import formats
from .folders import Listing, list_folder
from .found import Found, labelled_rows
from .labels import labels_of_folders, make_labels
from .metadata import Metadata, read_metadata
from .notices import counted, named, notice
from .splits import choose_split, folders_called_splits, split_depth, split_of_folder
from .tables import find_in_tables


UNPACK = "unpack the archive, and give the folder"


def find_local(path: Path, config, flag: str) -> Found:
    """
    The images of a folder or of a table.

    Raises:
        [`InputError`]: If there are none, or what there is does not fit the options.
    """
    if not path.exists():
        raise InputError(f"{flag} does not exist: give a folder of images or a parquet file")
    if path.is_file():
        ending = formats.read_ending(path.name)
        if ending in formats.TABLE_ENDINGS:
            return find_in_tables(path.parent, [path.name], config, flag)
        if ending in formats.ARCHIVE_ENDINGS:
            raise InputError(f"{flag} is an archive: {UNPACK}")
        raise InputError(f"{flag} is a file: give a folder of images or a parquet file")
    listing = list_folder(path, flag, config.follow_links)
    if listing.images:
        say_what_is_left(listing, flag)
        return find_images(listing, config, flag)
    if listing.tables or (listing.metadata and any(name.endswith(".parquet") for name in listing.metadata)):
        say_what_is_left(listing, flag, has_images=False)
        return find_in_tables(path, _tables(listing), config, flag)
    if listing.archives:
        raise InputError(f"{flag} holds no images, but {named(listing.archives)}: {UNPACK}")
    inside = f" (it has {listing.contents()} files)" if listing.contents() else " (it is empty)"
    raise InputError(f"{flag} holds no readable image{inside}: give a folder with PNG or JPEG files")


def _tables(listing: Listing) -> list[str]:
    """All tables of the kind that there is more reason to read."""
    names = listing.tables or [name for name in listing.metadata if name.endswith(".parquet")]
    parquet = [name for name in names if name.lower().endswith(".parquet")]
    return parquet or names


def say_what_is_left(listing: Listing, flag: str, has_images: bool = True):
    """One line for each kind of files that are left out."""
    for kind, names in sorted(listing.unreadable.items()):
        text = f"{flag}: {counted(len(names), f'{kind} file')} left out, a format that cannot be read"
        notice(text, names)
    if listing.hidden:
        notice(f"{flag}: {counted(len(listing.hidden), 'hidden image')} left out", listing.hidden)
    if listing.archives:
        text = f"{flag}: {counted(len(listing.archives), 'archive')} not read; unpack what belongs to the data"
        notice(text, listing.archives)
    if listing.broken_links:
        text = f"{flag}: {counted(len(listing.broken_links), 'link')} to nothing left out"
        notice(text, listing.broken_links)
    if listing.repeated_links:
        text = f"{flag}: {counted(len(listing.repeated_links), 'link')} to folders that are listed anyway left out"
        notice(text, listing.repeated_links)
    if has_images and (tables := [*listing.tables, *listing.side_tables]):
        text = f"{flag}: {counted(len(tables), 'table')} not read, since there are images (labels are read from"
        notice(f"{text} metadata.csv, metadata.jsonl and metadata.parquet)", tables)


def find_images(listing: Listing, config, flag: str) -> Found:
    """The images of a folder that belong to the split, with a row of the metadata if there are any."""
    metadata = read_metadata(listing, flag)
    names, level = _of_split(listing.images, config.train_split, flag)
    if metadata is not None:
        without = [name for name in names if name not in metadata.rows]
        if len(without) == len(names):
            raise InputError(f"{flag}: {named(listing.metadata)} names none of the {counted(len(names), 'image')}")
        if without:
            of = counted(len(names), "image")
            notice(f"{flag}: left out {len(without):,} of {of} that have no row in the metadata", without)
            names = [name for name in names if name in metadata.rows]
    labels, place = None, f"--class_column {config.class_column}"
    if config.class_column is not None:
        labels = _labels(names, level, metadata, config.class_column, flag)
        if (rows := labelled_rows(labels, place, names.__getitem__)) is not None:
            names, labels.values = [names[row] for row in rows], [labels.values[row] for row in rows]
    return Found([str(listing.path(name)) for name in names], labels, names.__getitem__)


def _of_split(names: list[str], wanted: str | None, flag: str) -> tuple[list[str], int | None]:
    """The images of the split, and the level of the folders that are splits."""
    level = split_depth(names)
    if level is None and (folders := folders_called_splits(names)):
        if wanted is not None:
            # Who asks for a split means these folders, and may mean one of another name beside them.
            level = 0
        elif any(split_of_folder(folder) != "train" for folder in folders):
            text = (
                f"{flag}: {named(folders, 5)} not taken for splits, since not all images lie in such folders or none"
            )
            notice(f"{text} of them is train: all images are used (--train_split {folders[-1]} uses one)")
    splits = [None] * len(names)
    if level is not None:
        folders = [name.split("/")[:-1] for name in names]
        there = [parts[level] if len(parts) > level else None for parts in folders]
        splits = [folder and (split_of_folder(folder) or folder) for folder in there]
    used, left = choose_split(splits, wanted, flag, "image")
    if left:
        notice(left)
    return [name for name, is_used in zip(names, used) if is_used], level


def _labels(names: list[str], level: int | None, metadata: Metadata | None, column: str, flag: str):
    """The labels of a column of the metadata, or of the class folders, which are the column `label`."""
    place = f"--class_column {column}"
    if metadata is not None and column in metadata.columns:
        values = [metadata.rows[name].get(column) for name in names]
        known = metadata.class_names.get(column)
        return make_labels(values, place, lambda number: metadata.places[names[number]], known)
    if column != "label":
        has = f"one of {', '.join(metadata.columns)}" if metadata is not None else "it has no metadata"
        raise InputError(f"{place} is not a column of {flag}: {has}; `label` stands for the names of class folders")
    classes = labels_of_folders(names, level, f"{place} of {flag}")
    return make_labels(classes, place, names.__getitem__, are_folders=True)
