"""Evaluation holds a bounded number of images, and says the same as if it held them all."""

import json

import pytest
import torch
from helpers.evaluations import measure_images
from helpers.image_streams import ManyImages, pixel_extractor
from PIL import Image
from safetensors.torch import load_file

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.data import ImageData
from diffusers_progdistill.data.decode import Reading
from diffusers_progdistill.errors import DiskError
from diffusers_progdistill.evaluation import distances
from diffusers_progdistill.evaluation import metrics as metrics_module
from diffusers_progdistill.evaluation.distances import frechet_distance, kernel_distance, precision_and_recall
from diffusers_progdistill.evaluation.extractors import train_classifier
from diffusers_progdistill.evaluation.images import RealImages, hash_images, read_parts
from diffusers_progdistill.evaluation.metrics import ImageMetrics
from diffusers_progdistill.evaluation.sampling import split_parts
from diffusers_progdistill.identity import content_key
from diffusers_progdistill.training import evaluate as evaluate_module


@pytest.fixture(autouse=True)
def small_samples(monkeypatch):
    """Of the figures that look at single images, of which there are more."""
    monkeypatch.setattr(distances, "MOST_IN_SUBSET", 60)
    monkeypatch.setattr(metrics_module, "MOST_COMPARED", 120)


def everything(data):
    return data.__getitems__(range(len(data)))[0]


def test_the_number_of_images_in_memory_does_not_grow_with_the_data(tmp_path):
    most = []
    for count in (1_000, 30_000):
        data = ManyImages(count)
        metrics = ImageMetrics(data, pixel_extractor(), 40, str(tmp_path))
        measure_images(metrics, everything(ManyImages(60)))
        assert metrics.real_vs_real["recall"] > 0
        assert data.alive == 0
        most.append(data.most_alive)
    assert most[0] == most[1] <= 300


def test_a_classifier_is_trained_on_a_batch_at_a_time():
    data = ManyImages(700, size=8)
    streamed = train_classifier(data, seed=1, epochs=1)
    assert data.most_alive <= 2 * 64
    # The same as on images in memory.
    images = ImageData(list(everything(data).numpy()), data.labels, 1, 8)
    kept = train_classifier(images, seed=1, epochs=1)
    for name, weight in streamed.state_dict().items():
        assert torch.equal(weight, kept.state_dict()[name])


@pytest.mark.parametrize("count", [1, 99, 100, 101, 1234])
def test_a_name_by_content_is_that_of_all_images_at_once(count):
    data = ManyImages(count)
    images = everything(data)
    assert hash_images(data) == content_key("images", images)
    assert torch.equal(torch.cat(list(read_parts(data, 7))), images)


def test_figures_are_those_of_all_features_at_once(tmp_path):
    data, fake = ManyImages(1500), everything(ManyImages(900))[137:]
    metrics = ImageMetrics(data, pixel_extractor(), 300, str(tmp_path))
    a, b = (images.flatten(1)[:, :5].float() for images in (everything(data), fake))
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(0))
    precision, recall = precision_and_recall(a[order[:120]], b[:120])
    expected = {"frechet_distance": frechet_distance(a, b), "kernel_distance": kernel_distance(a, b)}
    expected |= {"precision": precision, "recall": recall}
    assert measure_images(metrics, fake) == pytest.approx(expected, rel=1e-9)
    splits = [torch.randperm(1500, generator=torch.Generator().manual_seed(k)).split([300, 1200]) for k in range(5)]
    found = metrics.real_vs_real
    assert found["frechet_distance"] == pytest.approx(
        sum(frechet_distance(a[r], a[p]) for p, r in splits) / 5, rel=1e-9
    )
    part, rest = (a[index] for index in splits[0])
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(0))
    others = precision_and_recall(rest[order[:120]], part[:120])
    assert (found["precision"], found["recall"]) == others
    assert found["kernel_distance"] == pytest.approx(kernel_distance(rest, part), rel=1e-9)


def test_of_many_images_a_sample_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_module, "MOST_KEPT", 300)
    data, fake = ManyImages(1500), everything(ManyImages(900))
    a, b = (images.flatten(1)[:, :5].float() for images in (everything(data), fake))
    metrics = ImageMetrics(data, pixel_extractor(), 1000, str(tmp_path))
    # Frechet distances are of all images, whatever is kept.
    assert measure_images(metrics, fake)["frechet_distance"] == pytest.approx(frechet_distance(a, b), rel=1e-9)
    numbers = torch.randperm(1500, generator=torch.Generator().manual_seed(0))[:300].sort().values
    (path,) = tmp_path.glob("*.safetensors")
    assert torch.equal(load_file(path)["sample"], a[numbers])
    generated = metrics.collect()
    generated.add(fake)
    assert torch.equal(generated.finish()[1], b[:300])
    # Half of the sample is the largest part that is compared with all others.
    assert metrics.real_vs_real == ImageMetrics(data, pixel_extractor(), 150, str(tmp_path)).real_vs_real


@pytest.mark.parametrize("sizes", [[450], [1] * 450, [33, 250, 167], [99, 1, 101, 249]])
def test_generated_images_in_parts_of_any_size(sizes, tmp_path):
    seen, images = [], everything(ManyImages(450))
    metrics = ImageMetrics(ManyImages(500), pixel_extractor(on_call=seen.append), cache_dir=str(tmp_path))
    del seen[:]
    generated = metrics.collect()
    for part in images.split(sizes):
        generated.add(part)
    assert torch.equal(generated.finish()[1], images.flatten(1)[:, :5].float())
    figures = metrics.measure(generated)
    # A network's last digits depend on what it sees together.
    assert seen == [100, 100, 100, 100, 50]
    assert figures == measure_images(metrics, images)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 500, 1700, 10_000])
def test_parts_that_are_made_before_they_are_looked_at(world, batch_size):
    parts = split_parts(12_345, 500, batch_size, world)
    assert [number for part in parts for number in part] == list(range(12_345))
    counts = {len(part) for part in parts[:-1]}
    assert all(count % 500 == 0 and world * 500 <= count <= max(batch_size, world * 500) for count in counts)


def some_pictures(place, broken=()):
    """Two folders of pictures of 8x8, some of which are none."""
    for number in range(40):
        path = place / f"{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("L", (8, 8), 6 * number)
        picture.putpixel((number % 8, number // 8), 255)
        picture.save(path)
        if number in broken:
            path.write_bytes(path.read_bytes()[:40])


def test_images_that_are_read_anew_give_the_figures_of_those_in_memory(teacher_folder, tmp_path, monkeypatch, caplog):
    some_pictures(tmp_path / "images", broken=(3, 20, 39))
    rows = []
    for name, limit in (("kept", 2**28), ("anew", 0)):
        monkeypatch.setattr(evaluate_module, "IMAGES_IN_MEMORY", limit)
        caplog.clear()
        words = ["--train_data_dir", tmp_path / "images", "--class_column", "label", "--num_images", 10, "--steps", 1]
        words += ["--output_dir", tmp_path / name, "--cache_dir", tmp_path / f"cache-{name}"]
        assert main(["evaluate", *map(str, [teacher_folder, *words])]) == 0
        assert "3 of 40 images could not be read and were skipped: 0/20.png" in caplog.text
        rows.append(json.loads((tmp_path / name / "evaluation.json").read_text()))
    assert rows[0]["results"] == rows[1]["results"]


def test_an_image_that_goes_away_in_between(tmp_path):
    some_pictures(tmp_path, broken=(4,))
    paths = sorted(map(str, tmp_path.glob("*/*.png")))
    data = RealImages(ImageData(paths, [0] * 40, 1, 8, reading=Reading(memory_limit=0)))
    assert len(data) == len(data.labels) == 39 and everything(data).shape == (39, 1, 8, 8)
    (tmp_path / "1" / "05.png").unlink()
    with pytest.raises(DiskError, match="1/05.png could be read before and now cannot"):
        everything(data)
