"""Features that distances between sets of images are taken in."""

import torch
import torch.nn.functional as F
from torch import nn

from ..data import ImageData


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
