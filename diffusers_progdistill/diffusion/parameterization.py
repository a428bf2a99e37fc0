"""Conversions between what a network predicts (x, epsilon, v, or x and epsilon together) and the clean image x.

z is the noisy sample, alpha = cos(phi) and sigma = sin(phi) its signal and noise level; see section 4 of the paper.
"""

import torch


# How far beyond [-1, 1] a finished image's black and white are pulled, and up to which error a pixel may stay there:
# 89 and 13 of 256 gray levels.
HIDDEN_MARGIN, LARGEST_HIDDEN_ERROR = 0.7, 0.1

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "sample_epsilon")


def check_prediction_type(prediction_type: str):
    """Raise `ValueError` for anything that is not one of `PREDICTION_TYPES`."""
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"`prediction_type` must be one of {', '.join(PREDICTION_TYPES)}, not {prediction_type!r}")


def merge_sample_epsilon(model_output: torch.Tensor, z: torch.Tensor, alpha, sigma) -> torch.Tensor:
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


def to_sample(model_output: torch.Tensor, z: torch.Tensor, alpha, sigma, prediction_type: str) -> torch.Tensor:
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
    check_prediction_type(prediction_type)


def from_sample(x: torch.Tensor, z: torch.Tensor, alpha, sigma, prediction_type: str) -> torch.Tensor:
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
    check_prediction_type(prediction_type)


def hidden_error(
    output: torch.Tensor, target: torch.Tensor, z: torch.Tensor, alpha, sigma, prediction_type: str
) -> torch.Tensor:
    """
    What is taken off an output's error where it is judged by the finished image, in which x beyond [-1, 1] is shown as
    -1 or 1.

    An error out there is not seen, and does not count: a network can leave black and white where its small errors are
    hidden. So that it does, a pixel that should be black or white and is not counts `HIDDEN_MARGIN` more, as if it had
    to go as far beyond. One that is out there and should not be, by more than `LARGEST_HIDDEN_ERROR`, counts as it is
    and comes back.

    Args:
        output (`torch.Tensor`): What the network returned; the merged x for `"sample_epsilon"`.
        target (`torch.Tensor`): The x that it should mean.
        z, alpha, sigma, prediction_type: See [`from_sample`].

    Returns:
        `torch.Tensor`: In the space of the output.
    """
    x = output if prediction_type == "sample_epsilon" else to_sample(output, z, alpha, sigma, prediction_type)
    shown, shown_target = x.clamp(-1, 1), target.clamp(-1, 1)
    may_hide = (shown - shown_target).abs() <= LARGEST_HIDDEN_ERROR
    should_hide = (target.abs() >= 1) & (x * shown_target < 1)
    hidden = torch.where(may_hide, x - shown, 0.0) - (target - shown_target)
    hidden = hidden + torch.where(should_hide, HIDDEN_MARGIN * shown_target, 0.0)
    # An output is linear in the x that it means, and this its slope.
    slope = {"v_prediction": -1 / sigma, "epsilon": -alpha / sigma}.get(prediction_type, 1.0)
    return slope * hidden
