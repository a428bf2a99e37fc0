"""Between images and what a process adds noise to."""

import abc

import torch


class Codec(abc.ABC):
    """Makes data of images, and images of data."""

    @abc.abstractmethod
    def data_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The shape of one sample's data for images of `(channels, height, width)`."""

    @abc.abstractmethod
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """
        The float32 data of a batch.

        Args:
            images (`torch.Tensor` of shape `(batch_size, channels, height, width)`): `uint8`.
        """

    @abc.abstractmethod
    def decode(self, data: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1] of shape `(batch_size, channels, height, width)`."""


class PixelCodec(Codec):
    """Pixels are the data, in [-1, 1]."""

    def data_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return image_shape

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(torch.float32).div_(127.5).sub_(1)

    def decode(self, data: torch.Tensor) -> torch.Tensor:
        return (data / 2 + 0.5).clamp(0, 1)
