"""Image files of many formats and modes, and seeded damage to them."""

import io
from functools import cache

import numpy as np
from PIL import Image, ImageSequence


FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MORE_FORMATS = ("DDS", "ICO", "TGA", "PCX", "PPM", "BLP", "JPEG2000", "SGI", "IM")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")
ENDINGS = {"JPEG": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}
# Formats that Pillow writes an EXIF block into.
WITH_EXIF = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")


def encoded(image: Image.Image, format: str, **options) -> bytes:
    """The file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An RGB image in another mode, whatever steps Pillow needs."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode in ("I", "F"):
        return image.convert("L").convert(mode)
    return image.convert("LA").convert(mode) if mode == "La" else image.convert(mode)


@cache
def whole_files(seed: int, side: int = 12) -> list[tuple[str, bytes]]:
    """Ending and bytes of one file for each format and mode that Pillow writes, some animated."""
    rng, files = np.random.default_rng(seed), []
    for format in (*FORMATS, *MORE_FORMATS):
        for mode in MODES:
            image = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
            try:
                image = in_mode(image, mode)
                # A profile that Pillow makes holds the time.
                image.info.clear()
                files.append((ENDINGS.get(format, format.lower()), encoded(image, format)))
            except (OSError, ValueError, KeyError):  # there are no such files
                continue
    frames = list(ImageSequence.Iterator(Image.open(io.BytesIO(_animation(rng, side)))))
    # An animated AVIF holds the time.
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        file = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        files.append((ENDINGS.get(format, format.lower()), file))
    return files


def _animation(rng, side: int) -> bytes:
    frames = [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def with_exif(rng, side: int = 12) -> tuple[str, bytes]:
    """Ending and bytes of a whole picture with an EXIF block of garbage, some with an orientation."""
    block = bytearray(rng.bytes(int(rng.integers(0, 90))))
    if rng.random() < 0.7:
        exif = Image.Exif()
        exif[0x0112], exif[0x010F], exif[0x011A] = int(rng.integers(0, 10)), "maker", 72.0
        block = bytearray(exif.tobytes())
        for _ in range(int(rng.integers(0, 6))):
            block[int(rng.integers(6, len(block)))] = int(rng.integers(0, 256))
    format = WITH_EXIF[rng.integers(len(WITH_EXIF) - 2 * (len(block) == 0))]
    image = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    try:
        file = encoded(image, format, exif=bytes(block))
    except Exception:  # Pillow itself does not write every block
        file = encoded(image, "JPEG", exif=b"Exif\0\0" + bytes(block))
        format = "JPEG"
    return ENDINGS.get(format, format.lower()), file


def damaged(file: bytes, rng) -> bytes:
    """A file cut short, with some bytes replaced, with a piece moved, or with its head in front of another's body."""
    content, kind = bytearray(file), rng.integers(4)
    if kind == 0:
        return bytes(content[: int(rng.integers(0, len(content)))])
    if kind == 1:
        for _ in range(int(rng.integers(1, 9))):
            content[int(rng.integers(len(content)))] = int(rng.integers(256))
    elif kind == 2:
        # Heads hold what libraries trust: sizes, depths, offsets.
        for _ in range(int(rng.integers(1, 5))):
            content[int(rng.integers(min(64, len(content))))] = int(rng.integers(256))
    else:
        first, last = sorted(int(k) for k in rng.integers(0, len(content), 2))
        content[first:last] = rng.bytes(last - first)
    return bytes(content)


def mutated(count: int, seed: int):
    """Name and bytes of `count` files: one in eight whole, one in eight with an odd EXIF block, the rest damaged."""
    rng, files = np.random.default_rng(seed), whole_files(0)
    for number in range(count):
        ending, file = files[number % len(files)]
        kind = number // len(files) % 8
        if kind == 1:
            ending, file = with_exif(rng)
        elif kind:
            file = damaged(file, rng)
        yield f"{number:05}.{ending}", file
