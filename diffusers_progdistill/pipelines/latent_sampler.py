"""Samples any denoiser of latents as [`ProgressiveDistillationPipeline`] samples pixels, for figures and pictures."""

import dataclasses

import torch
from diffusers.image_processor import VaeImageProcessor

from ..denoisers.base import Denoiser
from ..denoisers.codec import LatentCodec
from ..schedulers import ProgressiveDistillationScheduler
from .pipeline_progressive_distillation import ProgressiveDistillationPipeline


class LatentSampler(ProgressiveDistillationPipeline):
    """
    The call of [`ProgressiveDistillationPipeline`] for a denoiser whose stored form is another pipeline's. It is not
    stored itself.

    Args:
        denoiser ([`Denoiser`]): Its network, and how it is called.
        codec ([`LatentCodec`]): Makes images of latents.
        scheduler ([`ProgressiveDistillationScheduler`]): The schedule, with the metadata of the classes.
    """

    model_cpu_offload_seq = "unet->vae"

    def __init__(self, denoiser: Denoiser, codec: LatentCodec, scheduler: ProgressiveDistillationScheduler):
        super().__init__(denoiser.network, scheduler)
        self.register_modules(vae=codec.vae)
        self._kept_denoiser, self._codec = denoiser, codec

    @property
    def denoiser(self) -> Denoiser:
        return dataclasses.replace(self._kept_denoiser, network=self.unet)

    def decode(self, latents: torch.Tensor, output_type: str):
        """The finished images of the asked type; `"latent"` are the latents."""
        if output_type == "latent":
            return latents
        return VaeImageProcessor().postprocess(self._codec.decode(latents) * 2 - 1, output_type)
