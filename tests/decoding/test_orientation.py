"""Pictures are upright as their EXIF block says, and used whatever else is in it."""

import struct

import numpy as np
import pytest
from helpers.broken_images import encoded
from helpers.exif_blocks import (
    ASCII,
    EXIF_POINTER,
    GPS_POINTER,
    LONG,
    MAKE,
    MAKER_NOTE,
    ORIENTATION,
    UNDEFINED,
    X_RESOLUTION,
    exif_block,
    rational,
    short,
)
from PIL import Image, ImageOps

from diffusers_progdistill.data.decode import read_picture


ARRAY = np.arange(6 * 4, dtype=np.uint8).reshape(4, 6) * 10
PICTURE = Image.fromarray(ARRAY).convert("RGB")
FORMATS = ["PNG", "WEBP", "TIFF"]


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("format", FORMATS)
def test_every_orientation_is_that_of_a_viewer(orientation, format):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    wanted = PICTURE.copy()
    wanted.getexif()[ORIENTATION] = orientation
    found = read_picture(encoded(PICTURE, format, exif=exif, **options)).image
    np.testing.assert_array_equal(np.asarray(found), np.asarray(ImageOps.exif_transpose(wanted)))


ODD = {
    "a maker that is a number": [rational(MAKE, 3, 7)],
    "a resolution of 72/0": [rational(X_RESOLUTION, 72, 0)],
    "a directory far outside": [(EXIF_POINTER, LONG, 1, struct.pack("<I", 99_999_999))],
    "a directory that is text": [(EXIF_POINTER, ASCII, 4, b"abc\0")],
    "a place of 6/0": [rational(GPS_POINTER, 6, 0)],
    "a note of 4 GB": [(MAKER_NOTE, UNDEFINED, 4_000_000_000, b"12345678")],
    "an unknown type": [(0x9999, 99, 3, b"1234")],
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_what_else_is_in_the_block_keeps_nothing_from_being_upright(name, format):
    file = encoded(PICTURE, format, exif=exif_block(short(ORIENTATION, 6), *ODD[name]))
    assert read_picture(file).image.size == (4, 6)


UNREADABLE = {
    "no block": b"",
    "garbage": b"Exif\0\0\xff\x00\x80garbage",
    "a cut head": b"Exif\0\0II*\0",
    "text as orientation": exif_block((ORIENTATION, ASCII, 2, b"6\0")),
    "nine": exif_block(short(ORIENTATION, 9)),
    "a wild start": b"Exif\0\0II*\0\xff\xff\xff\x7f",
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_block_that_says_nothing_leaves_the_picture_as_it_is(name, format):
    assert read_picture(encoded(PICTURE, format, exif=UNREADABLE[name])).image.size == (6, 4)
