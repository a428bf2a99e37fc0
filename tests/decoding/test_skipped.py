"""Whatever is raised while one file is read concerns that file: it is skipped, named and counted."""

import io
import logging
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from helpers.broken_images import encoded
from PIL import Image

from diffusers_progdistill.data import decode, load_data
from diffusers_progdistill.data import images as images_module
from diffusers_progdistill.data.images import ImageData
from diffusers_progdistill.data.sizes import look_at
from diffusers_progdistill.errors import InputError, StoppedBySignal
from diffusers_progdistill.training.config import DistillationConfig


def picture(value: int = 0) -> Image.Image:
    return Image.new("RGB", (8, 8), (value, 7, 9))


def bomb() -> bytes:
    """A few bytes that say they are 60,000 x 60,000 pixels."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def large(side: int) -> bytes:
    """A whole picture of one colour, a little larger than is read; Pillow itself only warns of it."""
    return encoded(Image.new("1", (side, side)), "PNG")


def unknown_pixel_format() -> bytes:
    file = bytearray(encoded(picture(), "DDS"))
    file[80:88] = struct.pack("<I4s", 4, b"XYZW")
    return bytes(file)


def unknown_encoding() -> bytes:
    file = bytearray(encoded(picture().quantize(4), "BLP"))
    file[8] = 77
    return bytes(file)


def damaged_avif() -> bytes:
    file = bytearray(encoded(picture(), "AVIF"))
    file[-20:] = b"\xff" * 20
    return bytes(file)


def half(format: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = encoded(Image.fromarray(noise), format)
    return file[: len(file) // 2]


BAD = {
    "dds": unknown_pixel_format,
    "blp": unknown_encoding,
    "avif": damaged_avif,
    "png": bomb,
    "bmp": lambda: b"BM" + b"\xff" * 60,
    "jpg": lambda: half("JPEG"),
    "webp": lambda: half("WEBP"),
    "tif": lambda: half("TIFF"),
    "gif": lambda: b"GIF89a" + bytes(40),
    "ico": lambda: b"",
    "jpeg": lambda: b"not a picture",
    "tiff": lambda: encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"),
}


@pytest.mark.parametrize("ending", BAD)
def test_a_damaged_file_is_skipped_and_named(ending, caplog, capfd):
    entries = [
        {"bytes": BAD[ending](), "path": f"set/bad.{ending}"},
        {"bytes": encoded(picture(5), "PNG"), "path": "g"},
    ]
    with warnings.catch_warnings():
        # Even where warnings are errors.
        warnings.simplefilter("error")
        data = ImageData(entries, [3, 1], 3, 8)
    assert len(data) == 1 and data.labels.tolist() == [1] and data.all_images()[0, 0, 0, 0] == 5
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and f"set/bad.{ending} (" in lines[0] and "1 of 2" in lines[0] and "\n" not in lines[0]
    assert "Warning" not in capfd.readouterr().err


def test_a_program_is_no_picture():
    with pytest.raises(OSError):
        decode.read_picture(encoded(picture(), "EPS"))


def test_too_many_pixels_are_skipped_without_a_warning(recwarn, monkeypatch):
    monkeypatch.setattr(decode, "MOST_PIXELS", 4000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    data = ImageData([large(64), encoded(picture(), "PNG")], None, 1, 8)
    assert data.findings.count("skipped") == 1 and len(recwarn) == 0


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("no"), RuntimeError("no"), struct.error("no"), MemoryError(), RecursionError("no"),
        KeyError("no"), UserWarning("no"), AssertionError(), zlib.error("no"), EOFError("no"), AttributeError("a\nb"),
        UnicodeDecodeError("utf-8", b"", 0, 1, "no"), ZeroDivisionError("no"), OverflowError("no"), TypeError("no"),
    ],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
@pytest.mark.parametrize("limit", [0, 2**31], ids=["streamed", "in memory"])
def test_whatever_is_raised_concerns_one_file(error, limit, monkeypatch, caplog):
    def raises(image, hidden, reading, flatten=decode.flatten):
        if image.size == (9, 9):
            raise error
        return flatten(image, hidden, reading)

    monkeypatch.setattr(decode, "flatten", raises)
    monkeypatch.setattr(images_module, "MEMORY_LIMIT", limit)
    files = [encoded(picture(1), "PNG"), encoded(Image.new("RGB", (9, 9)), "PNG"), encoded(picture(2), "PNG")]
    assert look_at(files[1:], decode.PLAIN).size == 8
    data = ImageData(files, None, 3, 8)
    numbers = list(range(len(data)))
    # The place of a file that cannot be read is taken by the next one, or it has none.
    assert data.__getitems__(numbers)[0][:, 0, 0, 0].tolist() == ([1, 2, 2] if limit == 0 else [1, 2])
    assert data.findings.count("skipped") == 1 and "row 1" in caplog.text
    assert all("\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), StoppedBySignal(15)], ids=str)
def test_a_person_who_stops_is_no_damaged_file(stop, monkeypatch):
    def raises(*_):
        raise stop

    monkeypatch.setattr(decode, "flatten", raises)
    with pytest.raises(type(stop)):
        ImageData([encoded(picture(), "PNG")], None, 3, 8)


NO_IMAGES = {
    "null": None,
    "no bytes, no path": {"bytes": None, "path": None},
    "an empty row": {},
    "a missing file": "nowhere/at-all.png",
    "a row with a missing file": {"bytes": None, "path": "nowhere/at-all.png"},
    "a number": 7,
    "a truth value": True,
    "text": "a cat\non a mat",
    "a row without bytes": {"path": 3},
    "a row of text": {"bytes": "cat", "path": None},
    "no bytes": {"bytes": b"", "path": "x.png"},
    "a list of text": ["a", "b"],
    "a ragged list": [[1, 2], [3]],
    "a list of nothing": [],
}


@pytest.mark.parametrize("limit", [0, 2**31], ids=["streamed", "in memory"])
def test_rows_without_an_image_are_counted(limit, caplog, monkeypatch):
    monkeypatch.setattr(images_module, "MEMORY_LIMIT", limit)
    entries = [encoded(picture(k), "PNG") for k in range(3)] + list(NO_IMAGES.values())
    data = ImageData(entries, list(range(len(entries))), 3, 8)
    assert data.findings.count("skipped", "missing") == len(NO_IMAGES)
    assert data.findings.count("missing") == 3 and "rows hold no image" in caplog.text
    assert all("\n" not in record.getMessage() for record in caplog.records)
    images, labels = data.__getitems__(list(range(len(data))))
    assert len(images) == (3 if limit else len(entries))
    # A label goes with its image, whichever image it is.
    assert images[:, 0, 0, 0].tolist() == labels.tolist()


def test_arrays_are_pictures():
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for entry in (values, values.tolist(), Image.fromarray(values), encoded(Image.fromarray(values), "PNG")):
        found = ImageData([entry], None, 3, 8).all_images()[0]
        assert torch.equal(found, torch.from_numpy(values).permute(2, 0, 1))


def test_a_table_with_a_null_is_read(tmp_path, caplog):
    import datasets

    rows = [{"bytes": encoded(picture(k), "PNG"), "path": None} for k in range(3)] + [None]
    table = datasets.Dataset.from_dict({"image": rows}, features=datasets.Features({"image": datasets.Image()}))
    table.to_parquet(tmp_path / "set.parquet")
    data = load_data(DistillationConfig(train_data_dir=str(tmp_path / "set.parquet"), cache_dir=str(tmp_path / "c")))
    assert len(data) == 3 and "1 of 4 rows hold no image" in caplog.text


@pytest.mark.parametrize("name", ["a\nb.png", "\x1b[31mred.png", "\udcff.png", "ü" * 300 + ".png"])
def test_names_of_any_characters_stay_in_one_line(name, caplog):
    with caplog.at_level(logging.WARNING):
        ImageData([{"bytes": b"no", "path": name}, {"bytes": encoded(picture(), "PNG"), "path": "b.png"}], None, 3, 8)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and "\n" not in lines[0] and len(lines[0]) < 300
    lines[0].encode("utf-8"), io.StringIO().write(lines[0])


def test_only_the_first_names_are_shown(caplog):
    entries = [{"bytes": b"no", "path": f"x/{k}.png"} for k in range(40)]
    ImageData([*entries, encoded(picture(), "PNG")], None, 3, 8)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and "40 of 41" in lines[0] and lines[0].count(".png") == 5 and lines[0].endswith("...")


def test_a_data_set_of_nothing_readable_is_refused():
    with pytest.raises(InputError, match="no readable image"):
        look_at([b"no", None, bomb()], decode.PLAIN)
    with pytest.raises(InputError, match="no readable image"):
        ImageData([b"no", None, bomb()], None, 3, 8)


def test_one_readable_image_among_many_is_found():
    entries = [b"no"] * 600
    entries[599] = encoded(picture().resize((12, 9)), "PNG")
    assert look_at(entries, decode.PLAIN, count=7).size == 9


def test_odd_sizes_are_said_once(caplog):
    ImageData([encoded(picture().resize(size), "PNG") for size in ((8, 8), (4, 4), (12, 8), (16, 9))], None, 3, 8)
    text = caplog.text
    assert "1 of 4 images are smaller than 8x8 and were enlarged" in text and "2 of 4 images are not square" in text
