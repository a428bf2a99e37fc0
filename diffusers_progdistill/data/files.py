"""The files of a folder: which are images or tables, which are left out, and where links may lead."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NoReturn

from PIL import Image

from ..errors import InputError
from .notices import clean, count, notice


METADATA_NAMES = {"metadata.jsonl", "metadata.csv", "metadata.parquet"}
# Images that Pillow has no reader for, by what a notice calls them. A plugin that registers one makes it readable.
OTHERS = (
    ".heic .heics .heif .heifs .hif .jxr .wdp .hdp .svg .svgz .eps .ps .wmf .emf .wmz .emz .pdf .ai .psb .xcf .kra"
    " .hdr .dcm .dicom .nii .djvu .djv .flif .bpg .ktx .ktx2 .pvr .astc .npy .npz"
)
RAW = ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl"
UNREADABLE = {ending[1:].upper(): ending for ending in OTHERS.split()} | {
    "JPEG XL": ".jxl",
    "OpenEXR": ".exr",
    "camera RAW": f"{RAW} .sr2 .srf .srw .x3f",
    "video": ".mp4 .mov .avi .mkv .webm .mpg .mpeg .m4v",
}
KINDS = UNREADABLE | {
    "table": ".parquet .arrow",
    # No data set of images by themselves, but somebody may take them for the labels of one.
    "side table": ".csv .tsv .jsonl .ndjson .feather",
    "archive": ".zip .tar .tgz .tbz .tbz2 .txz .gz .bz2 .xz .zst .lz4 .7z .rar",
    # Nobody's images: what lies beside them is not opened.
    "text": ".txt .json .xml .yaml .yml .md .py .html .htm .log .toml .caption",
}
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


def classify(name: str) -> str | None:
    """What a file is by its name; `None` where it is nobody's concern."""
    last, ending = name.rpartition("/")[2].lower(), os.path.splitext(name)[1].lower()
    kind = _read_kinds().get(ending, "other")
    if any(part.startswith(".") for part in name.split("/")):
        # `._` is the other half of a file that was copied from a Mac.
        return "hidden" if kind == "image" and not last.startswith("._") else None
    return "metadata" if last in METADATA_NAMES else kind


def _looks_like_image(path: str) -> bool:
    """Whether the first bytes of a file without a known ending are those of a common format."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return any(Image.OPEN[name][1](head) for name in COMMON_FORMATS if name in Image.OPEN)


def list_folder(root: Path, flag: str, follow_links: bool = False) -> dict[str, list[str]]:
    """The files below a folder by their kind, as sorted relative paths with `/`; links must not lead out of it."""
    files, seen, links, real = defaultdict(list), set(), [""], root.resolve()
    # In the Hub's cache every file of a snapshot is a link into the repository's blobs.
    places = [real, real.parent.parent / "blobs"] if real.parent.name == "snapshots" else [real]
    # Real folders come first and then those that links lead to, each once: neither cycles nor doubles.
    while links:
        start = links.pop(0)
        target = os.path.realpath(root / start)
        # A folder above would bring in everything beside this one.
        if start and (target in seen or real.is_relative_to(target)):
            files["repeated link"].append(start)
            continue
        for name in _walk(root, start, seen, flag):
            path, kind, is_link = f"{root}/{name}", classify(name), os.path.islink(f"{root}/{name}")
            is_folder = is_link and os.path.isdir(path)
            ends = Path(os.path.realpath(path)) if is_link and not follow_links else None
            if ends and not any(ends.is_relative_to(place) for place in places):
                if kind in ("image", "table", "metadata") or (is_folder and kind not in (None, "hidden")):
                    way_out = "give --follow_links, or put the file itself there"
                    raise InputError(f"{flag}: {clean(name)} leads out of the folder; {way_out}")
            elif is_folder:
                links.append(name)
            elif os.path.isfile(path):
                files["image" if kind == "other" and _looks_like_image(path) else kind].append(name)
            elif is_link:
                files["broken link"].append(name)
    return {kind: sorted(names) for kind, names in files.items() if kind is not None}


def _walk(root: Path, start: str, seen: set[str], flag: str) -> Iterator[str]:
    """The files and links of a folder, and of those below it that were not seen, as paths from the root."""

    def refuse(error: OSError) -> NoReturn:
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


def say_what_is_left(files: dict[str, list[str]], flag: str) -> None:
    """One line for each kind of files that are left out."""
    tables = [*files.get("table", []), *files.get("side table", [])] if "image" in files else []
    for kind, (noun, what) in LEFT_OUT.items():
        if names := tables if kind == "table" else files.get(kind):
            notice(f"{flag}: {count(len(names), noun)} {what}", names)


def describe_files(files: dict[str, list[str]]) -> str:
    """What there is instead of images, in words."""
    by_ending = {"text", "side table", "other"}
    counts: Counter[str] = Counter()
    for kind, names in files.items():
        counts.update(os.path.splitext(name)[1] if kind in by_ending else kind for name in names)
    # The endings of a stranger's files may be any text.
    return clean(", ".join(f"{n:,} {kind or 'without an ending'}" for kind, n in counts.most_common(5)))
