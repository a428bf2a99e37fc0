"""The part of an error that a finished image does not show: values beyond the range of pixels are cut off there."""

import torch


# Up to which error a pixel may stay beyond the range: 13 of 256 gray levels. What is shown worse than that must be
# able to come back, or a pixel could be lost out there.
LARGEST_HIDDEN_ERROR = 0.1


def hidden_error(x: torch.Tensor, target: torch.Tensor, margin: float) -> torch.Tensor:
    """
    What is taken off the error of x where x is judged by the finished image, in which values beyond [-1, 1] are shown
    as -1 or 1.

    An error out there is not seen, and does not count: a network can leave black and white where its small errors are
    hidden. So that it does, a pixel that should be black or white and is not counts `margin` more, as if it had to go
    as far beyond. One that is out there and should not be, by more than `LARGEST_HIDDEN_ERROR`, counts as it is and
    comes back.

    Args:
        x (`torch.Tensor`): What the network says of the image.
        target (`torch.Tensor`): What it should say.
        margin (`float`): See above; 0 pulls nothing beyond the range.

    Returns:
        `torch.Tensor`: Of the shape of x.
    """
    shown, shown_target = x.clamp(-1, 1), target.clamp(-1, 1)
    may_hide = (shown - shown_target).abs() <= LARGEST_HIDDEN_ERROR
    should_hide = (target.abs() >= 1) & (x * shown_target < 1)
    hidden = torch.where(may_hide, x - shown, 0.0) - (target - shown_target)
    return hidden + torch.where(should_hide, margin * shown_target, 0.0)
