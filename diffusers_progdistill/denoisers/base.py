"""The one place that calls a network, guides it, and makes a trainable student of it."""

import copy
from dataclasses import dataclass, replace

import torch

from ..processes.base import NoiseLevel, NoiseProcess, expand_like
from ..processes.prediction import to_sample


# What a network is called with beside z and the time, by argument: tensors with one row for each sample.
Conditioning = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Denoiser:
    """
    A network and what its inputs and outputs mean. A family whose network is called in another way is a subclass.

    Attributes:
        network (`torch.nn.Module`): The network, or a compiled one.
        process ([`NoiseProcess`]): What its time means.
        prediction_type (`str`): What its output means, one of `PREDICTION_TYPES`.
        has_classes (`bool`): Whether it is called with `class_labels`.
        null_conditioning (`Conditioning`, *optional*): One row that stands for no condition, for guidance.
        guidance_scale (`float`): Of the classifier-free guidance with which it estimates the data; 1 is none.
    """

    network: torch.nn.Module
    process: NoiseProcess
    prediction_type: str
    has_classes: bool = False
    null_conditioning: Conditioning | None = None
    guidance_scale: float = 1.0

    def call_network(
        self, network: torch.nn.Module, inputs: torch.Tensor, time: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """The output for a network's own input and time."""
        return network(inputs, time, **conditioning, return_dict=False)[0]

    def predict(
        self, z: torch.Tensor, level: NoiseLevel, conditioning: Conditioning, network: torch.nn.Module | None = None
    ) -> torch.Tensor:
        """
        The network's output in the dtype of z.

        Args:
            z (`torch.Tensor` of shape `(batch_size, ...)`): Variance preserving samples.
            level ([`NoiseLevel`]): How noisy they are.
            conditioning (`Conditioning`): Rows by sample.
            network (`torch.nn.Module`, *optional*): The same network as a trainer has wrapped it.
        """
        # A compiled network has no truth value.
        network = self.network if network is None else network
        inputs = self.process.network_input(z, expand_like(level.angle, z))
        return self.call_network(network, inputs, level.time, conditioning).to(z.dtype)

    def to_x0(self, output: torch.Tensor, z: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
        """The data that an output means. It is never clipped."""
        angle = expand_like(level.angle, z)
        return to_sample(output, z, torch.cos(angle), torch.sin(angle), self.prediction_type)

    def predict_x0(self, z: torch.Tensor, level: NoiseLevel, conditioning: Conditioning) -> torch.Tensor:
        """The estimate of the data, with guidance if there is some, of the shape of z."""
        x, guidance = self.predict_x0_and_guidance(z, level, conditioning)
        return x + guidance if self.guidance_scale != 1 else x

    def predict_x0_and_guidance(
        self, z: torch.Tensor, level: NoiseLevel, conditioning: Conditioning
    ) -> tuple[torch.Tensor, torch.Tensor | float]:
        """
        The estimate with the condition, and what classifier-free guidance of scale g adds to it,
        (g - 1)(x_cond - x_uncond). g is Meng et al. (2022)'s w + 1; both estimates are one call of a double batch.
        """
        if self.guidance_scale == 1:
            return self.to_x0(self.predict(z, level, conditioning), z, level), 0.0
        inputs = self.process.network_input(z, expand_like(level.angle, z))
        outputs = self.call_with_and_without(inputs, level.time, conditioning)
        conditional, unconditional = (self.to_x0(output.to(z.dtype), z, level) for output in outputs)
        return conditional, (self.guidance_scale - 1) * (conditional - unconditional)

    def call_with_and_without(
        self, inputs: torch.Tensor, time: torch.Tensor, conditioning: Conditioning
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The outputs with the conditioning and with the null one, by one call of a double batch."""
        null = self.null_conditioning or {}
        rows = {name: torch.cat([values, null[name].expand_as(values)]) for name, values in conditioning.items()}
        output = self.call_network(self.network, torch.cat([inputs, inputs]), torch.cat([time, time]), rows)
        with_condition, without = output.chunk(2)
        return with_condition, without

    def make_student(self) -> "Denoiser":
        """The same denoiser with a copy of the network that can be trained. The paper distils without dropout."""
        network = copy.deepcopy(self.network).requires_grad_(True)
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                # A `LabelEmbedding` of diffusers drops labels, and a student must learn all of them.
                module.dropout_prob = 0.0  # type: ignore[assignment]
        return replace(self, network=network, guidance_scale=1.0)
