"""Samples any denoiser of latents as [`ProgressiveDistillationPipeline`] samples pixels, for figures and pictures."""

import dataclasses

import torch
from diffusers import AutoencoderKL, ModelMixin, SchedulerMixin
from diffusers.image_processor import VaeImageProcessor

from ..denoisers.base import Denoiser
from ..denoisers.codec import LatentCodec
from .pipeline_progressive_distillation import ProgressiveDistillationPipeline


class LatentSampler(ProgressiveDistillationPipeline):
    """
    The call of [`ProgressiveDistillationPipeline`] for a denoiser whose stored form is another pipeline's. It is not
    stored itself.

    Args:
        unet ([`ModelMixin`]): The network.
        vae ([`AutoencoderKL`]): Makes images of latents.
        scheduler ([`ProgressiveDistillationScheduler`]): The schedule, with the metadata of the classes.
        denoiser ([`Denoiser`]): How the network is called.
    """

    model_cpu_offload_seq = "unet->vae"

    # diffusers wants the registered modules to be the arguments without a default.
    def __init__(
        self, unet: ModelMixin, vae: AutoencoderKL, scheduler: SchedulerMixin, denoiser: Denoiser | None = None
    ) -> None:
        super().__init__(unet, scheduler)
        self.register_modules(vae=vae)
        self._kept_denoiser = denoiser

    @property
    def denoiser(self) -> Denoiser:
        null = self._kept_denoiser.null_conditioning
        if null is not None:
            null = {name: value.to(self.unet.device) for name, value in null.items()}
        return dataclasses.replace(self._kept_denoiser, network=self.unet, null_conditioning=null)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width = (side * LatentCodec(self.vae).factor for side in self.latents_shape(1)[2:])
        return (self.vae.config.in_channels, height, width)

    def decode(self, latents: torch.Tensor, output_type: str) -> object:
        """The finished images of the asked type; `"latent"` are the latents."""
        if output_type == "latent":
            return latents
        return VaeImageProcessor().postprocess(LatentCodec(self.vae).decode(latents) * 2 - 1, output_type)
