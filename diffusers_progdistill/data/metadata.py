"""The rows of metadata.jsonl, metadata.csv and metadata.parquet, and the images that they are about."""

import csv
import json
import os
import unicodedata
from pathlib import Path
from typing import NamedTuple, TextIO

from ..errors import InputError
from .notices import count, enumerate_names, explain, notice


KEY = "file_name"


class Metadata(NamedTuple):
    """What the metadata say of each listed image, and the classes of the columns that name them themselves."""

    rows: dict[str, dict]
    class_names: dict[str, list[str]]


def read_metadata(root: Path, names: list[str], images: list[str], flag: str) -> Metadata:
    """Read the metadata files of a folder: each speaks of files in its folder and below, the deepest comes last."""
    folders = [os.path.dirname(name) for name in names]
    if doubled := [name for name, folder in zip(names, folders) if folders.count(folder) > 1]:
        shown = enumerate_names(doubled)
        raise InputError(f"{flag} has several metadata files in one folder ({shown}): keep one of them")
    known = {unicodedata.normalize("NFC", name): name for name in images}
    found, missing, repeated = Metadata({}, {}), [], []
    for name in sorted(names, key=lambda name: (name.count("/"), name)):
        rows, class_names = _read_file(root / name, name, flag)
        for column, classes in class_names.items():
            if found.class_names.setdefault(column, classes) != classes:
                raise InputError(f"{flag}: the column {column} of {name} names other classes than the other metadata")
        own = {}
        for number, row in enumerate(rows):
            file = row.pop(KEY, None)
            image = known.get(_find_place(name, file, flag)) if isinstance(file, str) else None
            if image is None:
                missing.append(file if isinstance(file, str) else f"row {number} of {name}")
            elif own.setdefault(image, row) != row:
                repeated.append(image)
        found.rows.update(own)
    if missing:
        notice(f"{flag}: skipped {count(len(missing), 'row')} of the metadata without such an image", missing)
    if repeated:
        notice(f"{flag}: skipped {count(len(repeated), 'row')} about an image that has one already", repeated)
    return found


def _find_place(metadata: str, file: str, flag: str) -> str:
    """The name of a file in the listing, from the metadata that name it."""
    # Written on Windows.
    file = file.replace("\\", "/")
    place = os.path.normpath(os.path.join(os.path.dirname(metadata), file))
    if place == ".." or place.startswith(("/", "../")):
        raise InputError(f"{flag}: {metadata} names {file}, which leads out of the folder")
    return unicodedata.normalize("NFC", place)


def _read_file(path: Path, name: str, flag: str) -> tuple[list[dict], dict[str, list[str]]]:
    """The rows of one file, and the class names of its columns."""
    names, ending = {}, path.suffix.lower()
    try:
        if ending == ".parquet":
            import datasets
            import pyarrow.parquet as parquet

            table = parquet.read_table(path)
            features, rows = datasets.Features.from_arrow_schema(table.schema), table.to_pylist()
            names = {k: list(f.names) for k, f in features.items() if isinstance(f, datasets.ClassLabel)}
        else:
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = _read_csv(file) if ending == ".csv" else [json.loads(line) for line in file if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("not every line is an object")
    except Exception as error:  # csv, json, pyarrow and the codec raise a dozen kinds for what is one thing to a user
        raise InputError(f"{flag}: {name} cannot be read as metadata: {explain(error)}") from error
    if not any(KEY in row for row in rows):
        has = f"it has {enumerate_names(rows[0], 8)}" if rows else "it is empty"
        raise InputError(f"{flag}: {name} has no column {KEY} that says which image a row is about ({has})")
    return rows, names


def _read_csv(file: TextIO) -> list[dict]:
    """The rows of a table whose delimiter is that which its first line has most of."""
    head = file.readline()
    file.seek(0)
    # Spreadsheets of some languages write semicolons. Cells beyond the last column have no name.
    rows = csv.DictReader(file, delimiter=max(",;\t", key=head.count))
    return [{key.strip(): value for key, value in row.items() if key is not None} for row in rows]
