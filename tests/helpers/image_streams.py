"""Data sets that are large, or count what is asked of them, and cost nothing."""

import weakref

import numpy as np
import torch

from diffusers_progdistill.evaluation.extractors import Extractor


class ManyImages:
    """
    Images that are a function of their number alone, made when they are asked for.

    Attributes:
        alive, most_alive (`int`): Images whose memory something still refers to now; and the most there ever were.
    """

    channels, num_classes = 1, 3

    def __init__(self, count: int, size: int = 4):
        self.count, self.size, self.alive, self.most_alive = count, size, 0, 0
        self.labels = torch.arange(count) % self.num_classes

    def __len__(self):
        return self.count

    def __getitems__(self, numbers):
        numbers = np.asarray(numbers)
        pixels = numbers[:, None] * 2654435761 + np.arange(self.size**2) * 40503 * (numbers[:, None] % 251 + 1)
        images = (pixels >> 7 & 255).astype(np.uint8).reshape(-1, 1, self.size, self.size)
        self.alive += len(numbers)
        self.most_alive = max(self.alive, self.most_alive)
        weakref.finalize(images, self._forget, len(numbers))
        return torch.from_numpy(images), self.labels[torch.from_numpy(numbers)]

    def _forget(self, count):
        self.alive -= count


def pixel_extractor(width=5, on_call=None):
    """Features that are the first pixels; `on_call` is told how many images are seen."""

    def features(images):
        if on_call is not None:
            on_call(len(images))
        return images.flatten(1)[:, :width].float()

    return Extractor("pixels", "FD (pixels)", f"pixels {width}", features, torch.device("cpu"))
