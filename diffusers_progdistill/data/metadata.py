"""The rows of metadata.jsonl, metadata.csv and metadata.parquet, and the files that they are about."""

import csv
import json
import unicodedata
from dataclasses import dataclass, field

from ..errors import InputError, describe_reason
from .folders import Listing
from .notices import counted, named, notice


KEY = "file_name"


@dataclass
class Metadata:
    """
    Attributes:
        rows (`dict[str, dict]`): What the metadata say of a listed image, by its name.
        columns (`list[str]`): All columns but the names of the files.
        class_names (`dict[str, list[str]]`): Of the columns that name their classes themselves.
        places (`dict[str, str]`): For messages, where the row of an image is.
    """

    rows: dict = field(default_factory=dict)
    columns: list = field(default_factory=list)
    class_names: dict = field(default_factory=dict)
    places: dict = field(default_factory=dict)


def read_metadata(listing: Listing, flag: str) -> Metadata | None:
    """
    Read all metadata files of a folder; each speaks of files in its own folder and below, and the deepest has the last
    word. Rows without a file are counted in a notice.

    Raises:
        [`InputError`]: If a file cannot be read, has no column `file_name`, or names files outside the folder.
    """
    if not listing.metadata:
        return None
    folders = [_folder_of(name) for name in listing.metadata]
    if doubled := [name for name, folder in zip(listing.metadata, folders) if folders.count(folder) > 1]:
        raise InputError(f"{flag} has several metadata files in one folder ({named(doubled)}): keep one of them")
    known = {unicodedata.normalize("NFC", name): name for name in listing.images}
    found, missing, repeated = Metadata(), [], []
    for name in sorted(listing.metadata, key=lambda n: (n.count("/"), n)):
        rows, names = _read(listing, name, flag)
        for column, classes in names.items():
            if found.class_names.setdefault(column, classes) != classes:
                raise InputError(f"{flag}: the column {column} of {name} names other classes than the other metadata")
        own = {}
        for number, row in enumerate(rows):
            file = row.pop(KEY, None)
            image = known.get(_place(_folder_of(name), file, flag, name)) if isinstance(file, str) else None
            if image is None:
                missing.append(file if isinstance(file, str) else f"row {number} of {name}")
            elif image in own and own[image] != row:
                repeated.append(image)
            else:
                own[image] = row
                found.places[image] = f"row {number} of {name} ({image})"
        found.rows.update(own)
        found.columns += [column for row in own.values() for column in row if column not in found.columns]
    if missing:
        notice(f"{flag}: skipped {counted(len(missing), 'row')} of the metadata without such an image", missing)
    if repeated:
        notice(f"{flag}: skipped {counted(len(repeated), 'row')} about an image that has one already", repeated)
    return found


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _place(folder: str, file: str, flag: str, name: str) -> str:
    """The name of a file in the listing, from the folder of its metadata."""
    parts = folder.split("/") if folder else []
    # Written on Windows.
    file = file.replace("\\", "/")
    for part in file.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part == ".." or (part == "" and file.startswith("/")):
            raise InputError(f"{flag}: {name} names {file}, which leads out of the folder")
        elif part not in ("", "."):
            parts.append(part)
    return unicodedata.normalize("NFC", "/".join(parts))


def _read(listing: Listing, name: str, flag: str) -> tuple[list[dict], dict[str, list[str]]]:
    """The rows of one file, and the class names of its columns."""
    path, names = listing.path(name), {}
    try:
        if name.lower().endswith(".parquet"):
            rows, names = _read_parquet(path)
        elif name.lower().endswith(".csv"):
            rows = _read_csv(path)
        else:
            rows = _read_lines(path)
    except Exception as error:  # csv, json, pyarrow and the codec raise a dozen kinds for what is one thing to a user
        raise InputError(f"{flag}: {name} cannot be read as metadata: {describe_reason(error)}") from error
    if not any(KEY in row for row in rows):
        columns = list(rows[0]) if rows else []
        has = f"it has {named(columns, 8)}" if columns else "it is empty"
        raise InputError(f"{flag}: {name} has no column {KEY} that says which image a row is about ({has})")
    return rows, names


def _read_parquet(path):
    import datasets
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    features = datasets.Features.from_arrow_schema(table.schema)
    return table.to_pylist(), {k: list(f.names) for k, f in features.items() if isinstance(f, datasets.ClassLabel)}


def _read_csv(path) -> list[dict]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        # Spreadsheets of some languages write semicolons.
        delimiter = max(",;\t", key=head.count)
        rows = list(csv.DictReader(file, delimiter=delimiter, restval=None))
    # Cells beyond the last column.
    return [{k.strip(): v for k, v in row.items() if k is not None} for row in rows]


def _read_lines(path) -> list[dict]:
    rows = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number + 1} is not an object")
                rows.append(row)
    return rows
