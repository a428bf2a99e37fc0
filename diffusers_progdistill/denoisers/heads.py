"""Which networks are accepted, and the one change that is made to them: a learned variance is dropped."""

import logging

import torch
from diffusers import UNet2DModel

from ..errors import InputError


logger = logging.getLogger(__name__)


def needs_labels(unet: UNet2DModel) -> bool:
    """Whether the network is class-conditional."""
    return unet.config.num_class_embeds is not None or unet.config.class_embed_type is not None


def accept_network(unet: object, flag: str, prediction_type: str) -> UNet2DModel:
    """
    The network as every command uses it: a learned variance is dropped, what cannot be used is refused.

    Args:
        unet ([`UNet2DModel`]): As it was loaded.
        flag (`str`): What a message calls it.
        prediction_type (`str`): Of its scheduler.

    Raises:
        [`InputError`]: For a network of another class, output, time embedding or class embedding.
    """
    if not isinstance(unet, UNet2DModel):
        raise InputError(f"{flag} has a {type(unet).__name__}: it must be a UNet2DModel")
    unet = without_learned_variance(unet, prediction_type)
    check_network(unet, flag, prediction_type)
    return unet


def check_network(unet: UNet2DModel, flag: str, prediction_type: str) -> None:
    """Refuse networks that cannot be asked at continuous timesteps, or whose output or labels are of another kind."""
    config = unet.config
    if config.time_embedding_type != "positional":
        raise InputError(
            f"{flag}: time_embedding_type {config.time_embedding_type!r} does not work at the timesteps of"
            " continuous time; it must be 'positional'"
        )
    heads = 2 if prediction_type == "sample_epsilon" else 1
    if config.out_channels != heads * config.in_channels:
        raise InputError(
            f"{flag}: out_channels {config.out_channels} must be {heads * config.in_channels} for in_channels"
            f" {config.in_channels} and prediction type {prediction_type}"
        )
    if config.class_embed_type == "identity":
        raise InputError(
            f"{flag}: class_embed_type 'identity' takes embeddings, not labels: it must be null or 'timestep'"
        )


def change_output(unet: UNet2DModel, rows: list[tuple[int, float]]) -> UNet2DModel:
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
    return change_output(unet, [(k, 1.0) for k in range(channels)])
