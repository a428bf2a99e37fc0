"""Between images and what a process adds noise to."""

import abc

import torch
from diffusers import AutoencoderKL


class Codec(abc.ABC):
    """
    Makes data of images, and images of data.

    Attributes:
        is_bounded (`bool`): Whether the data of an image lie in [-1, 1], as pixels do and latents do not.
    """

    is_bounded = False

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

    is_bounded = True

    def data_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return image_shape

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(torch.float32).div_(127.5).sub_(1)

    def decode(self, data: torch.Tensor) -> torch.Tensor:
        return (data / 2 + 0.5).clamp(0, 1)


class LatentCodec(Codec):
    """
    The latents of an [`AutoencoderKL`] are the data, as the stock pipelines scale them. Nothing of them is clipped.

    Args:
        vae ([`AutoencoderKL`]): Not trained. Images are encoded as the mean of its distribution.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)

    def data_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        _, height, width = image_shape
        return (self.vae.config.latent_channels, height // self.factor, width // self.factor)

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.to(self.vae.dtype).div(127.5).sub(1)
        latents = self.vae.encode(pixels).latent_dist.mode()
        return ((latents - (self.vae.config.shift_factor or 0)) * self.vae.config.scaling_factor).float()

    @torch.no_grad()
    def decode(self, data: torch.Tensor) -> torch.Tensor:
        latents = data.to(self.vae.dtype) / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0)
        return (self.vae.decode(latents, return_dict=False)[0].float() / 2 + 0.5).clamp(0, 1)
