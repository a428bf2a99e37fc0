"""What is trained on is what a viewer shows: what lies hidden under transparency never is."""

import io
import struct
import zlib

import numpy as np
import pytest
from helpers.broken_images import encoded
from PIL import Image, ImageSequence

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.data.decode import Reading, parse_color, read_picture
from diffusers_progdistill.data.images import ImageData
from diffusers_progdistill.data.sizes import look_at
from diffusers_progdistill.errors import InputError


GREEN, BLUE, INK = (0, 255, 0), (0, 0, 255), (10, 20, 30)


def half_hidden(hidden, mode: str = "RGBA") -> Image.Image:
    """8x8 pixels: ink on the left, a transparent colour on the right."""
    image = Image.new("RGBA", (8, 8), (*INK, 255))
    image.paste((*hidden, 0), (4, 0, 8, 8))
    return image.convert("LA").convert(mode) if mode in ("LA", "La") else image.convert(mode)


def keyed(format: str, mode: str, key_of, **options):
    """Makes files whose transparency is a colour key or an index."""

    def make(hidden):
        opaque = half_hidden(hidden).convert("RGB")
        image = opaque.convert(mode) if mode != "P" else opaque.quantize(4)
        return encoded(image, format, transparency=key_of(image), **options)

    return make


def chunk(name: bytes, body: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def deep_colour(hidden) -> bytes:
    """An RGB PNG of 16 bits with a colour key; Pillow reads the upper 8 of them."""
    pixels = np.asarray(half_hidden(hidden).convert("RGB")).astype(">u2") * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head, key = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0), pixels[0, 7].astype(">u2").tobytes()
    parts = [(b"IHDR", head), (b"tRNS", key), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def of_depth_two(hidden) -> bytes:
    """A gray PNG of 2 bits, where the key is counted in steps of 85: ink is black, hidden is 1 or 2."""
    value = 1 if hidden == GREEN else 2
    image = Image.new("L", (8, 8), 0)
    image.paste(value, (4, 0, 8, 8))
    image = image.convert("P")
    image.putpalette([0, 0, 0] * 4)
    file = bytearray(encoded(image, "PNG", bits=2))
    return as_gray_png(bytes(file), value)


def as_gray_png(file: bytes, key: int) -> bytes:
    """A palette PNG without its palette, as gray of the same depth with a colour key."""
    place, parts = 8, [file[:8]]
    while place < len(file):
        length, name = struct.unpack(">I4s", file[place : place + 8])
        body = file[place + 8 : place + 8 + length]
        if name == b"IHDR":
            parts += [chunk(name, body[:9] + b"\0" + body[10:]), chunk(b"tRNS", struct.pack(">H", key))]
        elif name in (b"IDAT", b"IEND"):
            parts.append(chunk(name, body))
        place += 12 + length
    return b"".join(parts)


def deep_gray(hidden) -> bytes:
    values = np.full((8, 8), 257 * 20, dtype=np.uint16)
    values[:, 4:] = 300 if hidden == GREEN else 40_000
    return encoded(Image.fromarray(values), "PNG", transparency=int(values[0, 7]))


def animated(format: str, **options):
    def make(hidden):
        first, later = half_hidden(hidden), half_hidden((200, 100, 0)).rotate(90)
        return encoded(first, format, save_all=True, append_images=[later], **options)

    return make


def lossless(format: str, mode: str = "RGBA", **options):
    return lambda hidden: encoded(half_hidden(hidden, mode), format, **options)


def palette_with_alphas(hidden) -> bytes:
    return encoded(half_hidden(hidden).convert("RGB").quantize(4), "PNG", transparency=alphas(half_hidden(hidden)))


def alphas(image) -> bytes:
    indexed = image.convert("RGB").quantize(4)
    table = [255] * 4
    table[indexed.getpixel((7, 0))] = 0
    # A second alpha value makes Pillow keep the table.
    table[next(k for k in range(4) if k not in (indexed.getpixel((7, 0)), indexed.getpixel((0, 0))))] = 7
    return bytes(table)


FILES = {
    "RGBA PNG": lossless("PNG"),
    "LA PNG": lossless("PNG", "LA"),
    "RGBA WebP": lossless("WEBP", lossless=True, exact=True),
    "RGBA TIFF": lossless("TIFF"),
    "RGBA TGA": lossless("TGA"),
    "RGBA ICO": lossless("ICO", sizes=[(8, 8)]),
    "RGBA DDS": lossless("DDS"),
    "RGBA JPEG 2000": lossless("JPEG2000"),
    "palette index": keyed("PNG", "P", lambda image: image.getpixel((7, 0))),
    "palette alphas": palette_with_alphas,
    "RGB key": keyed("PNG", "RGB", lambda image: image.getpixel((7, 0))),
    "L key": keyed("PNG", "L", lambda image: image.getpixel((7, 0))),
    "L key of 2 bits": of_depth_two,
    "16-bit key": deep_gray,
    "16-bit RGB key": deep_colour,
    "GIF": keyed("GIF", "P", lambda image: image.getpixel((7, 0))),
    "animated GIF": animated("GIF"),
    "animated PNG": animated("PNG"),
    "animated WebP": animated("WEBP", lossless=True, exact=True),
    "premultiplied": lambda hidden: half_hidden(hidden, "RGBa"),
    "premultiplied gray": lambda hidden: half_hidden(hidden, "La"),
    "palette in memory": lambda hidden: half_hidden(hidden, "PA"),
}


@pytest.mark.parametrize("name", FILES)
def test_hidden_colours_are_never_seen(name):
    shown = [read_picture(FILES[name](hidden)) for hidden in (GREEN, BLUE)]
    arrays = [np.asarray(picture.image) for picture in shown]
    np.testing.assert_array_equal(*arrays)
    assert (arrays[0][:, 4:] == 255).all() and (arrays[0][:, :4] < 80).all()
    assert "transparent" in shown[0].kinds
    assert ("page" in shown[0].kinds) == name.startswith("animated")


@pytest.mark.parametrize("alpha", [0, 1, 100, 254, 255])
@pytest.mark.parametrize("ground", ["white", "black", "#ff8000"])
def test_a_ground_shines_through_by_the_share_of_alpha(alpha, ground):
    below = parse_color(ground)
    image = Image.new("RGBA", (2, 2), (*INK, alpha))
    found = np.asarray(read_picture(encoded(image, "PNG"), Reading(background=below)).image)[0, 0]
    wanted = [(i * alpha + b * (255 - alpha)) / 255 for i, b in zip(INK, below)]
    np.testing.assert_allclose(found, wanted, atol=1)


def test_pictures_without_a_transparent_pixel_stay_as_they_are():
    image = Image.new("RGBA", (4, 4), (*INK, 255))
    picture = read_picture(encoded(image, "PNG"))
    assert picture.kinds == () and picture.image.getpixel((0, 0)) == INK


def test_a_first_frame_is_composed_and_later_ones_are_not_seen():
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(file))))) == 2
    assert read_picture(file).image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("format", ["TGA", "BMP"])
def test_a_fourth_byte_that_is_zero_everywhere_is_not_used(format):
    file = bytearray(encoded(half_hidden(GREEN), format))
    if format == "BMP":
        # What is read as an alpha channel is declared by masks.
        file = bytearray(bmp_with_masks(np.asarray(half_hidden(GREEN))[..., :3]))
    else:
        file[18:] = np.dstack([np.full((8, 8, 3), 77, np.uint8), np.zeros((8, 8, 1), np.uint8)]).tobytes()
    picture = read_picture(bytes(file))
    assert picture.kinds == () and picture.image.getpixel((0, 0)) in (INK, (77, 77, 77))


def bmp_with_masks(pixels) -> bytes:
    """A BMP with an alpha mask, and zero in it."""
    height, width, _ = pixels.shape
    body = np.dstack([pixels[::-1, :, ::-1], np.zeros((height, width, 1), np.uint8)]).tobytes()
    head = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = head.ljust(108, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(body), 0, 0, 14 + 108) + head + body


def test_what_the_first_frame_of_a_gif_does_not_cover_is_transparent():
    file = encoded(Image.new("P", (4, 8), 0), "GIF")
    canvas = file[:6] + struct.pack("<HH", 8, 8) + file[10:]
    picture = read_picture(canvas)
    assert picture.image.size == (8, 8) and picture.kinds == ("transparent",)
    found = np.asarray(picture.image)
    assert (found[:, 4:] == 255).all() and (found[:, :4] == 0).all()


def test_a_coloured_ground_colours_gray_pictures():
    gray = encoded(half_hidden(GREEN, "LA"), "PNG")
    assert look_at([gray], Reading()).channels == 1
    reading = Reading(background=(255, 0, 0))
    assert look_at([gray], reading).channels == 3
    assert ImageData([gray], None, 3, 8, reading=reading).all_images()[0, :, 0, 7].tolist() == [255, 0, 0]
    opaque = encoded(Image.new("L", (8, 8), 9), "PNG")
    assert look_at([opaque], reading).channels == 1


def test_one_notice_counts_and_names_what_was_laid_on_a_ground(caplog):
    entries = [{"bytes": FILES["RGBA PNG"](GREEN), "path": f"set/{k}.png"} for k in range(7)]
    entries += [{"bytes": encoded(Image.new("RGB", (8, 8)), "PNG"), "path": "plain.png"}]
    ImageData(entries, None, 3, 8)
    lines = [record.getMessage() for record in caplog.records if "transparent" in record.getMessage()]
    assert len(lines) == 1 and "7 of 8" in lines[0] and "white" in lines[0] and "set/0.png" in lines[0]
    assert lines[0].endswith(", ...") and "--background_color" in lines[0]


@pytest.mark.parametrize("name", ["whyte", "#12", "", "rgb(1,2)", "12"])
def test_a_colour_that_is_none_is_refused(name, capfd, tmp_path):
    with pytest.raises(InputError, match="--background_color"):
        parse_color(name)
    argv = ["train-teacher", "--dataset_name", "digits", f"--background_color={name}", "--report_to", "none"]
    assert main([*argv, "--output_dir", str(tmp_path / "out")]) == 2
    assert "--background_color" in capfd.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("name, color", [("white", (255, 255, 255)), ("#102030", (16, 32, 48)), ("Red", (255, 0, 0))])
def test_colours_have_names_and_numbers(name, color):
    assert parse_color(name) == color
