"""Features of the real images are kept by content: what hits, what misses, and what disturbs."""

import os
import threading
import time

import pytest
import torch
from helpers.image_streams import ManyImages, pixel_extractor
from PIL import Image
from safetensors.torch import load_file

from diffusers_progdistill.data import ImageData
from diffusers_progdistill.data.decode import Reading
from diffusers_progdistill.evaluation.cache import DAY, cached
from diffusers_progdistill.evaluation.metrics import ImageMetrics


class Counted:
    """An extractor, and the images that it has seen."""

    def __init__(self, width=5):
        self.seen = 0
        self.extractor = pixel_extractor(width, self._count)

    def _count(self, count):
        self.seen += count


def measured(data, cache, width=5):
    """How many images were seen, and the keys."""
    counted = Counted(width)
    metrics = ImageMetrics(data, counted.extractor, cache_dir=str(cache))
    return counted.seen, metrics.data_key, metrics.key


def folder(place, prefix="", names=range(12)):
    """Pictures in a folder, as a data set that reads them anew."""
    place.mkdir()
    for number in names:
        picture = Image.new("L", (8, 8), 20 * number)
        picture.putpixel((number % 8, 1), 255)
        picture.save(place / f"{prefix}{number:02}.png")
    return read(place)


def read(place):
    return ImageData(sorted(map(str, place.iterdir())), None, 1, 8, reading=Reading(memory_limit=0))


def test_the_same_images_elsewhere_are_known(tmp_path):
    first, *keys = measured(folder(tmp_path / "a"), tmp_path / "cache")
    again, *others = measured(folder(tmp_path / "b", prefix="renamed-"), tmp_path / "cache")
    assert (first, again) == (12, 0) and keys == others


def brighter(place):
    picture = Image.open(place / "05.png")
    picture.putpixel((0, 0), picture.getpixel((0, 0)) + 1)
    picture.save(place / "05.png")
    os.utime(place / "05.png", (1, 1))


def exchanged(place):
    (place / "05.png").rename(place / "x.png")
    (place / "06.png").rename(place / "05.png")
    (place / "x.png").rename(place / "06.png")


@pytest.mark.parametrize("change", [brighter, exchanged, lambda place: (place / "11.png").unlink()])
def test_a_change_is_noticed(change, tmp_path):
    data = folder(tmp_path / "a")
    first = measured(data, tmp_path / "cache")
    change(tmp_path / "a")
    data = read(tmp_path / "a")
    again = measured(data, tmp_path / "cache")
    assert again[0] == len(data) and not set(first[1:]) & set(again[1:])


def test_other_features_of_the_same_images(tmp_path):
    first, again = (measured(ManyImages(20), tmp_path, width) for width in (5, 6))
    assert first[0] == again[0] == 20 and first[1] == again[1] and first[2] != again[2]


def files(place):
    return sorted(path.name for path in place.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_an_interruption_leaves_nothing(error, tmp_path):
    def stop(_, calls=[]):
        calls.append(1)
        if len(calls) == 3:
            raise error("in the middle")

    with pytest.raises(error, match="in the middle"):
        ImageMetrics(ManyImages(500), pixel_extractor(on_call=stop), cache_dir=str(tmp_path))
    assert not tmp_path.exists() or files(tmp_path) == []
    assert measured(ManyImages(500), tmp_path)[0] == 500


def test_two_at_once(tmp_path, caplog):
    """Both are in the middle of the images when they wait for each other."""
    barrier, found = threading.Barrier(2), []

    def make():
        counts = []

        def wait(count):
            counts.append(count)
            if len(counts) == 2:
                barrier.wait(30)

        found.append(ImageMetrics(ManyImages(500), pixel_extractor(on_call=wait), cache_dir=str(tmp_path)))

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and files(tmp_path) == [f"{found[0].key}.safetensors"] and caplog.text == ""
    assert found[0].real_vs_real == found[1].real_vs_real


@pytest.mark.parametrize("content", [b"", b"half"])
def test_a_file_that_is_not_whole_is_made_again(content, tmp_path):
    *_, key = measured(ManyImages(20), tmp_path)
    path = tmp_path / f"{key}.safetensors"
    path.write_bytes(content)
    assert measured(ManyImages(20), tmp_path)[0] == 20 and len(load_file(path)["sample"]) == 20


def test_what_a_killed_process_left_is_removed_a_day_later(tmp_path):
    for name, age in ((".old.tmp", DAY + 60), (".new.tmp", 60)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    cached("key", lambda: {"x": torch.ones(1)}, str(tmp_path))
    assert files(tmp_path) == [".new.tmp", "key.safetensors"]


def test_a_cache_that_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    seen, *_ = measured(ManyImages(20), tmp_path / "file" / "cache")
    again, *_ = measured(ManyImages(20), tmp_path / "file" / "cache")
    # Until the process ends they are kept somewhere else.
    assert (seen, again) == (20, 0) and caplog.text.count("nothing is kept in the cache") <= 1
