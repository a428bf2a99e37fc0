"""Our own listing of a folder: which of its files belong to the data set, and what the others are."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from . import formats
from .findings import printable


# Folders of other programs: what lies there is no part of anybody's data.
FOREIGN_FOLDERS = {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}


@dataclass
class Listing:
    """
    The files below a folder, as relative paths with `/`, in the order of their names.

    Attributes:
        root (`Path`): The folder.
        images, tables, metadata, side_tables, archives (`list[str]`): By what they are.
        unreadable (`dict[str, list[str]]`): Images of formats that Pillow cannot read, by format.
        hidden (`list[str]`): Images that are hidden or lie in hidden folders, and are left out.
        broken_links, repeated_links (`list[str]`): Links to nothing, and to folders that are listed anyway.
        others (`Counter`): All other files, by ending.
    """

    root: Path
    images: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    metadata: list = field(default_factory=list)
    side_tables: list = field(default_factory=list)
    archives: list = field(default_factory=list)
    unreadable: dict = field(default_factory=dict)
    hidden: list = field(default_factory=list)
    broken_links: list = field(default_factory=list)
    repeated_links: list = field(default_factory=list)
    others: Counter = field(default_factory=Counter)

    def path(self, name: str) -> Path:
        """Where a listed file is."""
        return self.root / name

    def sort(self):
        for names in (self.images, self.tables, self.metadata, self.side_tables, self.archives, self.hidden):
            names.sort()

    def contents(self) -> str:
        """What there is instead of images, in words."""
        parts = [f"{len(names):,} {kind}" for kind, names in sorted(self.unreadable.items())]
        parts += [f"{len(self.hidden):,} hidden"] if self.hidden else []
        tables = Counter(formats.read_ending(name) for name in [*self.side_tables, *self.metadata])
        others = self.others + tables
        # The endings of a stranger's files may be any text.
        parts += [f"{n:,} {ending or 'without an ending'}" for ending, n in others.most_common(3)]
        return printable(", ".join(parts))


def list_folder(root: Path, flag: str, follow_links: bool = False) -> Listing:
    """
    List a folder and all folders below it. Names never decide more than whether a file is an image.

    Args:
        root (`Path`): The folder.
        flag (`str`): What a message calls it.
        follow_links (`bool`, defaults to `False`): Whether links may lead out of the folder.

    Raises:
        [`InputError`]: If a link leads out of the folder and may not, or a folder cannot be read.
    """
    return _Walk(root, flag, follow_links).listing()


class _Walk:
    """Real folders first and then those that links lead to, each once: neither cycles nor doubles."""

    def __init__(self, root: Path, flag: str, follow_links: bool):
        self.root, self.flag, self.follow_links = root, flag, follow_links
        self.found, self.seen, self.links = Listing(root), set(), []
        real = root.resolve()
        # In the Hub's cache every file of a snapshot is a link into the repository's blobs.
        blobs = real.parent.parent / "blobs"
        self.allowed = [real, blobs] if real.parent.name == "snapshots" and blobs.is_dir() else [real]

    def listing(self) -> Listing:
        self._enter("")
        while self.links:
            self.links.sort(reverse=True)
            name = self.links.pop()
            target = (self.root / name).resolve()
            # A folder above would bring in everything beside this one.
            if target in self.seen or self.root.resolve().is_relative_to(target):
                self.found.repeated_links.append(name)
            else:
                self._enter(name)
        self.found.sort()
        return self.found

    def _enter(self, name: str):
        waiting = [name]
        while waiting:
            folder = waiting.pop()
            real = (self.root / folder).resolve()
            if real in self.seen:
                continue
            self.seen.add(real)
            try:
                entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
            except OSError as error:
                place = self.root / folder
                raise InputError(f"{self.flag}: the folder {place} cannot be read: {error.strerror}") from error
            for entry in entries:
                inner = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    self._take_link(inner)
                elif entry.is_dir():
                    if is_foreign(entry.name):
                        continue
                    waiting.append(inner)
                elif entry.is_file():
                    self._take(inner)

    def _take_link(self, name: str):
        path = self.root / name
        if not self._may_follow(path):
            if not is_hidden(name) and (path.is_dir() or formats.is_data(name)):
                raise InputError(
                    f"{self.flag}: {printable(name)} leads out of the folder; give --follow_links, or put the file"
                    " itself there"
                )
            return
        if path.is_dir():
            self.links.append(name)
        elif path.is_file():
            self._take(name)
        else:
            self.found.broken_links.append(name)

    def _may_follow(self, path: Path) -> bool:
        if self.follow_links:
            return True
        try:
            target = path.resolve()
        except (OSError, RuntimeError):
            # A link to itself.
            return True
        return any(target.is_relative_to(place) for place in self.allowed)

    def _take(self, name: str):
        found, ending = self.found, formats.read_ending(name)
        last = name.rpartition("/")[2]
        if last.startswith("._"):
            # The other half of a file that was copied from a Mac.
            return
        is_image = ending in formats.image_endings()
        if is_hidden(name):
            found.hidden += [name] if is_image else []
        elif is_image:
            found.images.append(name)
        elif last.lower() in formats.METADATA_NAMES:
            found.metadata.append(name)
        elif ending in formats.TABLE_ENDINGS:
            found.tables.append(name)
        elif ending in formats.SIDE_TABLE_ENDINGS:
            found.side_tables.append(name)
        elif ending in formats.ARCHIVE_ENDINGS:
            found.archives.append(name)
        elif ending in formats.UNREADABLE:
            found.unreadable.setdefault(formats.UNREADABLE[ending], []).append(name)
        elif ending not in formats.TEXT_ENDINGS and formats.looks_like_image(self.root / name):
            found.images.append(name)
        else:
            found.others[ending] += 1


def is_foreign(name: str) -> bool:
    """Whether a folder is another program's."""
    return name in FOREIGN_FOLDERS


def is_hidden(name: str) -> bool:
    """Whether a path below the folder, or a folder on the way to it, is hidden."""
    return any(part.startswith(".") for part in name.split("/"))
