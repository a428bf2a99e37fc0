"""Which files are images, by their ending or by their first bytes; and which known images Pillow cannot read."""

import os
from functools import cache
from pathlib import Path

from PIL import Image


TABLE_ENDINGS = {".parquet", ".arrow"}
# Tables that are no data set of images by themselves, but that somebody may take for the labels of one.
SIDE_TABLE_ENDINGS = {".csv", ".tsv", ".jsonl", ".ndjson", ".feather"}
METADATA_NAMES = {"metadata.jsonl", "metadata.csv", "metadata.parquet"}
# Nobody's images: the text that lies beside them is not opened.
TEXT_ENDINGS = {".txt", ".json", ".xml", ".yaml", ".yml", ".md", ".py", ".html", ".htm", ".log", ".toml", ".caption"}
ARCHIVE_ENDINGS = {
    *(".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".7z", ".rar"),
}

# Pillow registers these endings, but reads them only with another program or a handler that it does not bring.
NOT_OPENED = {".eps", ".ps", ".wmf", ".emf", ".bufr", ".grib", ".h5", ".hdf", ".mpg", ".mpeg", ".pdf", ".palm"}
# Formats of images that Pillow has no reader for, by ending. A plugin that registers one makes it readable.
UNREADABLE = {
    **dict.fromkeys((".heic", ".heif", ".heics", ".heifs", ".hif"), "HEIC"),
    **dict.fromkeys((".jxl",), "JPEG XL"),
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), "JPEG XR"),
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
    **dict.fromkeys((".eps", ".ps"), "EPS"),
    **dict.fromkeys((".wmf", ".emf", ".emz", ".wmz"), "WMF"),
    **dict.fromkeys((".pdf",), "PDF"),
    **dict.fromkeys((".ai",), "Illustrator"),
    **dict.fromkeys((".psb",), "PSB"),
    **dict.fromkeys((".xcf",), "XCF"),
    **dict.fromkeys((".kra",), "Krita"),
    **dict.fromkeys((".exr",), "OpenEXR"),
    **dict.fromkeys((".hdr",), "Radiance HDR"),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    **dict.fromkeys((".nii",), "NIfTI"),
    **dict.fromkeys((".djvu", ".djv"), "DjVu"),
    **dict.fromkeys((".ktx", ".ktx2", ".pvr", ".astc"), "GPU textures"),
    **dict.fromkeys((".flif",), "FLIF"),
    **dict.fromkeys((".bpg",), "BPG"),
    **dict.fromkeys((".npy", ".npz"), "NumPy arrays"),
    **dict.fromkeys(
        (
            *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos"),
            *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
        ),
        "camera RAW",
    ),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v"), "video"),
}


@cache
def image_endings() -> frozenset[str]:
    """The endings of files that Pillow opens, lower case, with those of plugins that are installed."""
    Image.init()
    names = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    return frozenset(names - NOT_OPENED)


def read_ending(path: str) -> str:
    """The ending in lower case; that of `images.tar.gz` is `.gz`."""
    return os.path.splitext(path)[1].lower()


def is_data(name: str) -> bool:
    """Whether a file is an image, a table or metadata by its name."""
    is_table = read_ending(name) in TABLE_ENDINGS or name.rpartition("/")[2].lower() in METADATA_NAMES
    return is_table or read_ending(name) in image_endings()


def looks_like_image(path: Path) -> bool:
    """Whether the first bytes of a file without a known ending are those of a common format that Pillow reads."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return (
        head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"qoif", b"II*\0", b"MM\0*"))
        or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")
        or (head.startswith(b"BM") and head[6:10] == b"\0\0\0\0")
        or head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"))
        or (head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"))
    )
