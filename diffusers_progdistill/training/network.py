"""The network that a stage starts from: a copy of its teacher's, with another output or another clock where needed."""

import copy
import logging

import torch
from diffusers import UNet2DModel

from ..diffusion.noise_schedule import NoiseSchedule, cosine_angle, time_to_timestep


logger = logging.getLogger(__name__)

# Enough for the few thousand weights of a time embedding; a fraction of a second for small networks.
CLOCK_UPDATES, CLOCK_POINTS, CLOCK_RATE = 500, 1024, 3e-3


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


def adopted_network(
    teacher: UNet2DModel, schedule: NoiseSchedule, teacher_type: str, prediction_type: str, num_train_timesteps: int
) -> UNet2DModel:
    """
    What an adopted student starts from: the teacher's weights, its time embedding set to our clock, and the heads of
    its own prediction type.

    Args:
        teacher ([`UNet2DModel`]): The foreign network.
        schedule ([`NoiseSchedule`]): The teacher's.
        teacher_type, prediction_type (`str`): What the teacher predicts, and what the student is to predict.
        num_train_timesteps (`int`): T of the student.
    """
    student = student_network(teacher)
    if not schedule.is_canonical:
        set_clock(student, schedule, num_train_timesteps)
    channels = student.config.in_channels
    keep = [(k, 1.0) for k in range(channels)]
    if teacher_type != prediction_type == "sample_epsilon":
        student = with_output(student, keep + keep)
    elif teacher_type == "sample_epsilon" != prediction_type:
        student = with_output(student, [(k + channels * (prediction_type == "epsilon"), 1.0) for k in range(channels)])
    return student.requires_grad_(True)


def set_clock(unet: UNet2DModel, schedule: NoiseSchedule, num_train_timesteps: int):
    """
    Fit the time embedding so that the network, asked at our timestep, sees what it saw at its own of the same log-SNR.

    Two small linear layers are trained on their own outputs; nothing of the rest of the network is run.
    """
    time = torch.linspace(0, 1, CLOCK_POINTS + 1, dtype=torch.float64)[1:]
    ours = time_to_timestep(time, num_train_timesteps).float().to(unet.device)
    theirs = schedule.timesteps(cosine_angle(time)).to(unet.device)
    embedding = unet.time_embedding
    with torch.no_grad():
        target = embedding(unet.time_proj(theirs).to(unet.dtype)).float()
        features = unet.time_proj(ours).float()
    embedding.float()
    optimizer = torch.optim.Adam(embedding.parameters(), CLOCK_RATE)
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, CLOCK_UPDATES)
    with torch.enable_grad():
        for _ in range(CLOCK_UPDATES):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.mse_loss(embedding(features), target).backward()
            optimizer.step()
            rate.step()
    embedding.zero_grad(set_to_none=True)
    embedding.to(unet.dtype)
