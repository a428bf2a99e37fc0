"""EXIF blocks as cameras and careless programs write them: any tag of any type."""

import struct


SHORT, LONG, RATIONAL, ASCII, UNDEFINED = 3, 4, 5, 2, 7
ORIENTATION, MAKE, X_RESOLUTION, EXIF_POINTER, GPS_POINTER, MAKER_NOTE = 0x112, 0x10F, 0x11A, 0x8769, 0x8825, 0x927C


def exif_block(*tags: tuple[int, int, int, bytes]) -> bytes:
    """A block of little-endian tags: number, type, count and the bytes of the value."""
    directory, data, start = struct.pack("<H", len(tags)), b"", 8 + 2 + 12 * len(tags) + 4
    for tag, kind, count, value in sorted(tags):
        directory += struct.pack("<HHI", tag, kind, count)
        if len(value) > 4:
            directory += struct.pack("<I", start + len(data))
            data += value
        else:
            directory += value.ljust(4, b"\0")
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + data


def short(tag: int, value: int):
    return tag, SHORT, 1, struct.pack("<H", value)


def rational(tag: int, over: int, under: int):
    return tag, RATIONAL, 1, struct.pack("<II", over, under)
