"""Pictures of every mode and depth show what their 8-bit copies show; nothing is clipped without a word."""

import struct

import numpy as np
import pytest
from helpers.broken_images import encoded
from PIL import Image

from diffusers_progdistill.data.decode import PLAIN, read_picture
from diffusers_progdistill.data.images import ImageData
from diffusers_progdistill.data.sizes import look_at


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
GRAY, DEEP = Image.fromarray(RAMP), Image.fromarray(RAMP.astype(np.uint16) * 257)


def tiff(values: np.ndarray, photometric: int = 1, bits: int = 16, sample_format: int = 1) -> bytes:
    """An uncompressed gray TIFF of any sample format, byte order and meaning of zero."""
    order = ">" if values.dtype.str[0] == ">" else "<"
    raw = values.tobytes()
    tags = [(256, values.shape[1]), (257, values.shape[0]), (258, bits), (259, 1), (262, photometric)]
    tags += [(273, 8), (277, 1), (278, values.shape[0]), (279, len(raw)), (339, sample_format)]
    directory = struct.pack(order + "H", len(tags))
    for tag, value in tags:
        directory += struct.pack(order + "HHII", tag, 4, 1, value)
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "I", 8 + len(raw))
    return head + raw + directory + struct.pack(order + "I", 0)


def twelve_bits(values: np.ndarray) -> bytes:
    """Two values in three bytes."""
    pairs = values.reshape(-1, 2).astype(np.uint32)
    packed = pairs[:, 0] << 12 | pairs[:, 1]
    body = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1).astype(np.uint8)
    return body.tobytes()


def tiff_of_twelve_bits() -> bytes:
    plain = tiff(RAMP.astype("<u2"), bits=12)
    body = twelve_bits(np.round(RAMP * (4095 / 255)).astype(np.uint16))
    return plain[:8] + body.ljust(RAMP.size * 2, b"\0") + plain[8 + RAMP.size * 2 :]


EXACT = {
    "8-bit PNG": encoded(GRAY, "PNG"),
    "16-bit PNG": encoded(DEEP, "PNG"),
    "16-bit TIFF": encoded(DEEP, "TIFF"),
    "16-bit TIFF, compressed": encoded(DEEP, "TIFF", compression="tiff_lzw"),
    "16-bit TIFF, big-endian": tiff(RAMP.astype(">u2") * 257),
    "16-bit TIFF, white is zero": tiff((255 - RAMP).astype("<u2") * 257, photometric=0),
    "12-bit TIFF": tiff_of_twelve_bits(),
    "16-bit PGM": encoded(DEEP, "PPM"),
    "16-bit JPEG 2000": encoded(DEEP, "JPEG2000", irreversible=False),
    "I;16B": Image.frombytes("I;16B", (16, 16), (RAMP.astype(np.uint16) * 257).astype(">u2").tobytes()),
    "32-bit integers to 255": encoded(GRAY.convert("I"), "TIFF"),
    "32-bit integers to 65535": tiff(RAMP.astype("<u4") * 257, bits=32),
    "signed 32-bit integers": tiff(RAMP.astype(">i4"), bits=32, sample_format=2),
    "floats to 1": encoded(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"),
    "floats to 1, compressed": encoded(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF", compression="tiff_lzw"),
    "floats to 255": encoded(GRAY.convert("F"), "TIFF"),
    "floats to 65535": tiff(RAMP.astype("<f4") * 257, bits=32, sample_format=3),
    "palette": encoded(GRAY.convert("P"), "PNG"),
    "gray and alpha": encoded(GRAY.convert("LA"), "PNG"),
    "8-bit TIFF, white is zero": tiff(255 - RAMP, photometric=0, bits=8),
    "array of bytes": RAMP,
    "array of 16 bits": RAMP.astype(np.uint16) * 257,
    "array of floats": RAMP.astype(np.float64) / 255,
    "array with a channel": RAMP[:, :, None],
    "list": RAMP.tolist(),
    "list of pixels": np.stack([RAMP] * 3, -1).tolist(),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_ramp_of_any_depth_is_its_8_bit_ramp(name):
    picture = read_picture(EXACT[name])
    assert picture.image.mode in ("L", "RGB")
    np.testing.assert_array_equal(np.asarray(picture.image.convert("L")), RAMP)
    uncertain = "32-bit" in name or name.startswith("floats")
    assert picture.kinds == (("range",) if uncertain else ())


@pytest.mark.parametrize(
    "mode, format",
    [(mode, None) for mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX", "PA", "La", "RGBa")]
    + [("CMYK", "TIFF"), ("CMYK", "JPEG"), ("YCbCr", "TIFF"), ("YCbCr", "JPEG"), ("LAB", "TIFF")],
)
def test_every_colour_space_shows_the_same_colours(mode, format):
    rows = np.linspace(0, 255, 16).astype(np.uint8)
    rgb = Image.fromarray(np.stack([np.tile(rows, (16, 1)), np.tile(rows[:, None], 16), RAMP // 2], -1))
    steps = {"PA": ("RGBA", "PA"), "La": ("LA", "La"), "RGBa": ("RGBA", "RGBa")}
    image = rgb
    for step in steps.get(mode, (mode,)):
        image = image.convert(step)
    wanted = np.asarray(rgb.convert("LA").convert("RGB") if mode == "La" else rgb).astype(int)
    entry = image if format is None else encoded(image, format, quality=100, subsampling=0)
    found = np.asarray(read_picture(entry).image.convert("RGB")).astype(int)
    # 256 colours are few for PA; a JPEG is not exact.
    assert np.abs(found - wanted).mean() < (25 if mode == "PA" else 4)


def test_one_bit_is_black_and_white():
    pixels = RAMP > 100
    for photometric in (0, 1):
        bits = np.packbits(~pixels if photometric == 0 else pixels, axis=1)
        file = tiff(bits, photometric=photometric, bits=1).replace(
            struct.pack("<HHII", 256, 4, 1, 2), struct.pack("<HHII", 256, 4, 1, 16)
        )
        np.testing.assert_array_equal(np.asarray(read_picture(file).image), np.where(pixels, 255, 0))
    np.testing.assert_array_equal(np.asarray(read_picture(pixels).image), np.where(pixels, 255, 0))


def with_value(value, dtype="<f4", sample_format=3) -> bytes:
    values = RAMP.astype(dtype)
    values[0, 0] = value
    return tiff(values, bits=32, sample_format=sample_format)


UNCERTAIN = {
    "NaN": with_value(np.nan),
    "infinity": with_value(np.inf),
    "negative floats": with_value(-0.5),
    "large floats": with_value(1e6),
    "negative integers": with_value(-1, "<i4", 2),
    "large integers": with_value(2**31 - 1, "<i4", 2),
    "array with NaN": np.full((8, 8), np.nan),
    "text": np.full((8, 8), "a"),
    "five channels": np.zeros((8, 8, 5), np.uint8),
    "one axis": np.zeros(8, np.uint8),
    "nothing": np.zeros((0, 8), np.uint8),
}


@pytest.mark.parametrize("name", UNCERTAIN)
def test_values_that_no_range_holds_are_skipped_not_clipped(name, caplog):
    data = ImageData([UNCERTAIN[name], EXACT["8-bit PNG"]], None, 1, 16)
    assert data.findings.count("skipped") == 1 and "1 of 2" in caplog.text
    np.testing.assert_array_equal(data.all_images()[0, 0].numpy(), RAMP)


def test_pages_of_a_tiff_after_the_first_are_left_out_with_a_notice(caplog):
    file = encoded(GRAY, "TIFF", save_all=True, append_images=[GRAY.rotate(90), GRAY])
    np.testing.assert_array_equal(ImageData([file], None, 1, 16).all_images()[0, 0].numpy(), RAMP)
    assert "only the first is used" in caplog.text


def test_deep_files_are_gray():
    names = [n for n in EXACT if "16-bit" in n or "32-bit" in n or "floats" in n]
    assert look_at([EXACT[name] for name in names], PLAIN).channels == 1


def test_colours_in_a_gray_data_set_are_named(caplog):
    ImageData([EXACT["8-bit PNG"], encoded(Image.new("RGB", (16, 16), "red"), "PNG")], None, 1, 16)
    assert "1 of 2 images have colours" in caplog.text
