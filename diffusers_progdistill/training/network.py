"""The network that a stage starts from: a copy of its teacher's, with other output channels where needed."""

import copy
import logging

import torch
from diffusers import UNet2DModel


logger = logging.getLogger(__name__)


def student_network(teacher: UNet2DModel) -> UNet2DModel:
    """A copy of the teacher's network that can be trained. The paper distils without dropout."""
    student = copy.deepcopy(teacher).requires_grad_(True)
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return student


def needs_labels(unet: UNet2DModel) -> bool:
    """Whether the network is class-conditional."""
    return unet.config.num_class_embeds is not None or unet.config.class_embed_type is not None


def with_output(unet: UNet2DModel, rows: list[tuple[int, float]]) -> UNet2DModel:
    """
    A copy of the network whose output channel k is channel `rows[k][0]` of the old one, times `rows[k][1]`.
    """
    config = {k: v for k, v in unet.config.items() if not k.startswith("_")}
    made = UNet2DModel(**{**config, "out_channels": len(rows)}).to(unet.device, unet.dtype)
    state = unet.state_dict()
    index = torch.tensor([k for k, _ in rows], device=unet.device)
    factor = torch.tensor([f for _, f in rows], device=unet.device, dtype=unet.dtype)
    for name in ("conv_out.weight", "conv_out.bias"):
        state[name] = state[name][index] * factor.view(-1, *(1,) * (state[name].ndim - 1))
    made.load_state_dict(state)
    return made.train(unet.training)


def without_learned_variance(unet: UNet2DModel, prediction_type: str) -> UNet2DModel:
    """The network with the mean's channels alone, where it predicts a variance beside it (as improved DDPM does)."""
    channels = unet.config.in_channels
    if prediction_type == "sample_epsilon" or unet.config.out_channels != 2 * channels:
        return unet
    logger.warning(
        "the teacher predicts a variance too (%d output channels for %d of the image): those channels are dropped",
        unet.config.out_channels,
        channels,
    )
    return with_output(unet, [(k, 1.0) for k in range(channels)])


def adopted_network(teacher: UNet2DModel, teacher_type: str, prediction_type: str) -> UNet2DModel:
    """
    What an adopted student starts from: the teacher's weights, all of them, with the heads of its prediction type.

    A fresh output convolution learns more slowly, and fitting the time embedding to our timesteps first gains nothing
    that a few hundred updates do not (docs/adopt.md).
    """
    student = student_network(teacher)
    channels = student.config.in_channels
    keep = [(k, 1.0) for k in range(channels)]
    if teacher_type != prediction_type == "sample_epsilon":
        student = with_output(student, keep + keep)
    elif teacher_type == "sample_epsilon" != prediction_type:
        student = with_output(student, [(k + channels * (prediction_type == "epsilon"), 1.0) for k in range(channels)])
    return student.requires_grad_(True)
