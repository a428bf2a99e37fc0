"""Conversions between what a network predicts (x, epsilon, v, a flow, or x and epsilon) and the clean data x.

z is the variance preserving sample, alpha = cos(phi) and sigma = sin(phi) its signal and noise level; see section 4 of
the paper.
"""

import torch

from .base import Scalar


# `flow` is u = eps - x, the velocity of rectified flow; `edm` is EDM's F, which is -v.
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "sample_epsilon", "flow", "edm")


def check_prediction_type(prediction_type: str) -> None:
    """Raise `ValueError` for anything that is not one of `PREDICTION_TYPES`."""
    if prediction_type not in PREDICTION_TYPES:
        raise _unknown(prediction_type)


def _unknown(prediction_type: str) -> ValueError:
    return ValueError(f"`prediction_type` must be one of {', '.join(PREDICTION_TYPES)}, not {prediction_type!r}")


def merge_sample_epsilon(model_output: torch.Tensor, z: torch.Tensor, alpha: Scalar, sigma: Scalar) -> torch.Tensor:
    """
    The paper's two-headed prediction (x, eps) merged to one x: sigma^2 x~ + alpha (z - sigma eps~).

    It is the x head alone at pure noise and the epsilon head alone at clean data, and never divides.

    Args:
        model_output (`torch.Tensor` of shape `(batch_size, 2 * channels, height, width)`): x~ first, then eps~.
        z (`torch.Tensor` of shape `(batch_size, channels, height, width)`): The noisy sample.
        alpha, sigma (`float` or `torch.Tensor`): Broadcast against `z`.

    Returns:
        `torch.Tensor`: x of the shape of `z`.
    """
    x, epsilon = model_output.chunk(2, dim=1)
    return sigma**2 * x + alpha * (z - sigma * epsilon)


def to_sample(
    model_output: torch.Tensor, z: torch.Tensor, alpha: Scalar, sigma: Scalar, prediction_type: str
) -> torch.Tensor:
    """
    The network's estimate of the clean image.

    Args:
        model_output (`torch.Tensor`): What the network returned.
        z (`torch.Tensor`): The noisy sample it was given.
        alpha, sigma (`float` or `torch.Tensor`): Broadcast against `z`.
        prediction_type (`str`): One of `PREDICTION_TYPES`. With `"epsilon"` alpha must not be 0.

    Raises:
        `ValueError`: If the prediction type is not known.
    """
    if prediction_type == "v_prediction":
        return alpha * z - sigma * model_output
    if prediction_type == "epsilon":
        return (z - sigma * model_output) / alpha
    if prediction_type == "sample":
        return model_output
    if prediction_type == "sample_epsilon":
        return merge_sample_epsilon(model_output, z, alpha, sigma)
    if prediction_type == "flow":
        return (z - sigma * model_output) / (alpha + sigma)
    if prediction_type == "edm":
        return alpha * z + sigma * model_output
    raise _unknown(prediction_type)


def from_sample(x: torch.Tensor, z: torch.Tensor, alpha: Scalar, sigma: Scalar, prediction_type: str) -> torch.Tensor:
    """
    The network output that means the clean image `x`: the inverse of [`to_sample`] for the one-headed types.

    For `"sample_epsilon"` it is `x` itself, since only the merged x of that type enters a loss.

    Raises:
        `ValueError`: If the prediction type is not known.
    """
    if prediction_type == "v_prediction":
        return (alpha * z - x) / sigma
    if prediction_type == "epsilon":
        return (z - alpha * x) / sigma
    if prediction_type in ("sample", "sample_epsilon"):
        return x
    if prediction_type == "flow":
        return (z - (alpha + sigma) * x) / sigma
    if prediction_type == "edm":
        return (x - alpha * z) / sigma
    raise _unknown(prediction_type)


def merge_heads(
    model_output: torch.Tensor, z: torch.Tensor, alpha: Scalar, sigma: Scalar, prediction_type: str
) -> torch.Tensor:
    """The output that is compared with [`from_sample`]: of two heads the x that they make together."""
    if prediction_type != "sample_epsilon":
        return model_output
    return merge_sample_epsilon(model_output, z, alpha, sigma)


def output_slope(alpha: Scalar, sigma: Scalar, prediction_type: str) -> Scalar:
    """How much a network's output changes with the x that it means: an output is linear in x."""
    slopes = {
        "v_prediction": lambda: -1 / sigma,
        "epsilon": lambda: -alpha / sigma,
        "flow": lambda: -(alpha + sigma) / sigma,
        "edm": lambda: 1 / sigma,
    }
    return slopes[prediction_type]() if prediction_type in slopes else 1.0
