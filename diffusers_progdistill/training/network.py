"""The network that a stage starts from: a copy of its teacher's, with other output channels where needed."""

import copy

import torch
from diffusers import UNet2DModel

from ..pipelines.networks import change_output


def student_network(teacher: UNet2DModel) -> UNet2DModel:
    """A copy of the teacher's network that can be trained. The paper distils without dropout."""
    student = copy.deepcopy(teacher).requires_grad_(True)
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return student


def make_converted_network(teacher: UNet2DModel, teacher_type: str, prediction_type: str) -> UNet2DModel:
    """
    What an converted student starts from: the teacher's weights, all of them, with the heads of its prediction type.

    A fresh output convolution learns more slowly, and fitting the time embedding to our timesteps first gains nothing
    that a few hundred updates do not (docs/convert.md).
    """
    student = student_network(teacher)
    channels = student.config.in_channels
    keep = [(k, 1.0) for k in range(channels)]
    if teacher_type != prediction_type == "sample_epsilon":
        student = change_output(student, keep + keep)
    elif teacher_type == "sample_epsilon" != prediction_type:
        student = change_output(
            student, [(k + channels * (prediction_type == "epsilon"), 1.0) for k in range(channels)]
        )
    return student.requires_grad_(True)
