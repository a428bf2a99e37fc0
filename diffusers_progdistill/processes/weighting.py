"""Loss weightings (section 4 of the paper) in the space in which the network predicts.

The paper weights the error of x with w(SNR). An error of v is an error of x divided by sigma, one of epsilon is one of
x times alpha/sigma, one of a flow is one of x times (alpha + sigma)/sigma. Each weight is multiplied out here: no SNR
is ever formed and divided away again, and everything is finite at both ends of the schedule.
"""

import torch

from .prediction import check_prediction_type


WEIGHTINGS = ("snr", "truncated_snr", "snr_plus_one", "constant")


def loss_weight(angle: torch.Tensor, weighting: str, prediction_type: str) -> torch.Tensor:
    """
    The factor of the squared error of the network's own output.

    Args:
        angle (`torch.Tensor`): phi in radians, in (0, pi/2).
        weighting (`str`): `"snr"`, `"truncated_snr"` (max(SNR, 1)), `"snr_plus_one"` or `"constant"`, as weights of
            the error of x.
        prediction_type (`str`): The space of the error. `"sample_epsilon"` is compared as its merged x.

    Returns:
        `torch.Tensor`: Weights of the shape of `angle`.

    Raises:
        `ValueError`: If the weighting or the prediction type is not known.
    """
    check_prediction_type(prediction_type)
    signal, noise = torch.cos(angle) ** 2, torch.sin(angle) ** 2
    # w(SNR) = numerator / sigma^2.
    if weighting == "snr":
        numerator = signal
    elif weighting == "truncated_snr":
        numerator = torch.maximum(signal, noise)
    elif weighting == "snr_plus_one":
        numerator = torch.ones_like(signal)
    elif weighting == "constant":
        numerator = noise
    else:
        raise ValueError(f"`weighting` must be one of {', '.join(WEIGHTINGS)}, not {weighting!r}")
    if prediction_type in ("v_prediction", "edm"):
        return numerator
    if prediction_type == "flow":
        return numerator / (torch.cos(angle) + torch.sin(angle)) ** 2
    return numerator / (signal if prediction_type == "epsilon" else noise)


def mean_square(error: torch.Tensor) -> torch.Tensor:
    """The mean of each sample's squared error, formed in float32 or better."""
    return error.to(torch.promote_types(error.dtype, torch.float32)).square().flatten(1).mean(1)


def weighted_loss(error: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of weight times the squared error's mean over pixels; `weight` has shape `(batch_size,)`."""
    return (weight * mean_square(error)).mean()


def pseudo_huber_loss(error: torch.Tensor, weight: torch.Tensor, c: float) -> torch.Tensor:
    """
    Mean over the batch of sqrt(w m + c^2) - c, where m is an image's mean squared error.

    The pseudo-Huber loss of improved consistency training (Song & Dhariwal, 2023), divided by the root of the number
    of values: far above `c`, which is a root mean squared error, each image counts with its distance and not with its
    square, so that the worst ones do not rule the gradient.

    Args:
        error (`torch.Tensor`): Errors of the network's output, shape `(batch_size, channels, height, width)`.
        weight (`torch.Tensor`): Of the squared errors, shape `(batch_size,)`.
        c (`float`): Where the loss goes over from the square to the distance.
    """
    square = weight * mean_square(error)
    # The difference without its cancellation.
    return (square / ((square + c**2).sqrt() + c)).mean()
