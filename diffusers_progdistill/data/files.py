"""The files of a folder: which are images or tables, which are left out, and where links may lead."""

import os
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from ..errors import InputError
from .notices import clean, count, notice


METADATA_NAMES = {"metadata.jsonl", "metadata.csv", "metadata.parquet"}
# Images that Pillow has no reader for, by what a notice calls them. A plugin that registers one makes it readable.
RAW = ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl"
OTHERS = ".heic .heif .hif .jxr .svg .svgz .eps .ps .wmf .emf .pdf .ai .psb .xcf .kra .hdr .dcm .nii .djvu .flif .bpg"
UNREADABLE = {ending[1:].upper(): ending for ending in OTHERS.split()} | {
    "JPEG XL": ".jxl",
    "OpenEXR": ".exr",
    "GPU texture": ".ktx .ktx2 .pvr .astc",
    "NumPy": ".npy .npz",
    "camera RAW": f"{RAW} .sr2 .srf .srw .x3f",
    "video": ".mp4 .mov .avi .mkv .webm .mpg .mpeg .m4v",
}
KINDS = UNREADABLE | {
    "table": ".parquet .arrow",
    "archive": ".zip .tar .tgz .tbz .tbz2 .txz .gz .bz2 .xz .zst .lz4 .7z .rar",
}
# Tables that are no data set of images by themselves, but that somebody may take for the labels of one.
SIDE_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".feather"}
# Nobody's images: the text that lies beside them is not opened.
TEXT_ENDINGS = {".txt", ".json", ".xml", ".yaml", ".yml", ".md", ".py", ".html", ".htm", ".log", ".toml", ".caption"}
# Pillow registers these endings, but reads them only with another program or a handler that it does not bring.
NOT_OPENED = {".eps", ".ps", ".wmf", ".emf", ".bufr", ".grib", ".h5", ".hdf", ".mpg", ".mpeg", ".pdf", ".palm"}
# Formats that files without a known ending are recognised by.
COMMON_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "QOI")
# Folders of other programs: what lies there is no part of anybody's data.
FOREIGN_FOLDERS = {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}

# What a notice calls the kinds of files that are left out, and what it says of them.
LEFT_OUT = {kind: (f"{kind} file", "left out, a format that cannot be read") for kind in sorted(UNREADABLE)} | {
    "hidden": ("hidden image", "left out"),
    "archive": ("archive", "not read; unpack what belongs to the data"),
    "broken link": ("link", "to nothing left out"),
    "repeated link": ("link", "to folders that are listed anyway left out"),
    "table": ("table", "not read, since there are images (labels are read from metadata.csv, .jsonl and .parquet)"),
}


@cache
def _read_kinds() -> dict[str, str]:
    """The kind of each known ending; images are what Pillow opens, with the plugins that are installed."""
    Image.init()
    images = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    kinds = {ending: kind for kind, endings in KINDS.items() for ending in endings.split()}
    return kinds | dict.fromkeys(images - NOT_OPENED, "image")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def classify(name: str) -> str | None:
    """What a file is by its name: a kind of files, or its ending; `None` where it is nobody's concern."""
    last, ending = name.rpartition("/")[2].lower(), os.path.splitext(name)[1].lower()
    kind = _read_kinds().get(ending, ending)
    if _is_hidden(name):
        # `._` is the other half of a file that was copied from a Mac.
        return "hidden" if kind == "image" and not last.startswith("._") else None
    return "metadata" if last in METADATA_NAMES else kind


def _classify_content(path: str, kind: str | None) -> str | None:
    """The kind of a file, which is an image if nothing but its first bytes say so."""
    if kind is None or kind in TEXT_ENDINGS or kind in SIDE_TABLES or not (kind == "" or kind.startswith(".")):
        return kind
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return kind
    accepts = [Image.OPEN[name][1] for name in COMMON_FORMATS if name in Image.OPEN]
    return "image" if any(accept(head) for accept in accepts) else kind


def find_roots(root: Path) -> list[Path]:
    """Where the files of a folder may really lie: in it or, for a snapshot of the Hub's cache, among its blobs."""
    real = root.resolve()
    blobs = real.parent.parent / "blobs"
    return [real, blobs] if real.parent.name == "snapshots" and blobs.is_dir() else [real]


def list_folder(root: Path, flag: str, follow_links: bool = False) -> dict[str, list[str]]:
    """
    The files below a folder by their kind, as relative paths with `/`, in the order of their names. Real folders come
    first and then those that links lead to, each once: neither cycles nor doubles. Links must not lead out of it.
    """
    files, seen, links, roots = defaultdict(list), set(), [""], find_roots(root)
    while links:
        start = links.pop(0)
        target = os.path.realpath(root / start)
        # A folder above would bring in everything beside this one.
        if start and (target in seen or roots[0].is_relative_to(target)):
            files["repeated link"].append(start)
            continue
        for name in _walk(root, start, seen, flag):
            path, is_link = f"{root}/{name}", os.path.islink(f"{root}/{name}")
            is_folder, kind = os.path.isdir(path), classify(name)
            real = Path(os.path.realpath(path)) if is_link and not follow_links else roots[0]
            if not any(real.is_relative_to(place) for place in roots):
                if kind in ("image", "table", "metadata") or (is_folder and not _is_hidden(name)):
                    way_out = "give --follow_links, or put the file itself there"
                    raise InputError(f"{flag}: {clean(name)} leads out of the folder; {way_out}")
            elif is_folder:
                links.append(name)
            elif os.path.isfile(path):
                files[_classify_content(path, kind)].append(name)
            elif is_link:
                files["broken link"].append(name)
    return {kind: sorted(names) for kind, names in files.items() if kind is not None}


def _walk(root: Path, start: str, seen: set[str], flag: str) -> Iterator[str]:
    """The files and links of a folder, and of those below it that were not seen, as paths from the root."""

    def refuse(error: OSError):
        raise InputError(f"{flag}: the folder {error.filename} cannot be read: {error.strerror}") from error

    for folder, inner, names in os.walk(root / start, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(set(inner) - FOREIGN_FOLDERS)
        links = [name for name in inner if os.path.islink(os.path.join(folder, name))]
        place = Path(folder).relative_to(root).as_posix()
        for name in sorted([*names, *links]):
            yield name if place == "." else f"{place}/{name}"


def say_what_is_left(files: dict[str, list[str]], flag: str):
    """One line for each kind of files that are left out."""
    has_images = "image" in files
    tables = [name for kind in ("table", *SIDE_TABLES) for name in files.get(kind, [])] if has_images else []
    for kind, (noun, what) in LEFT_OUT.items():
        if names := tables if kind == "table" else files.get(kind):
            notice(f"{flag}: {count(len(names), noun)} {what}", names)


def describe_files(files: dict[str, list[str]]) -> str:
    """What there is instead of images, in words."""
    kinds = sorted(files.items(), key=lambda item: len(item[1]), reverse=True)
    # The endings of a stranger's files may be any text.
    return clean(", ".join(f"{len(names):,} {kind or 'without an ending'}" for kind, names in kinds[:5]))
