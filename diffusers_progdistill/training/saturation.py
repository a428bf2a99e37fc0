"""How many values of the images lie at the ends of the range: it says whether `--clip_loss` may help."""

import torch

from ..data import ImageData


# Images that are looked at, and how many at once.
SAMPLE, AT_ONCE = 1024, 64
# Above this share the images have plain grounds: of CIFAR-10's values 2 % are at the ends, of the digits' 58 %.
SATURATED = 0.1


def saturated_share(images: torch.Tensor) -> float:
    """Share of the values of `uint8` images, of any shape, that are at the ends of the range."""
    return ((images == 0) | (images == 255)).float().mean().item()


def share_of_data(data: ImageData, seed: int = 0) -> float:
    """[`saturated_share`] of a sample of a data set, at most `SAMPLE` images, the same for the same seed."""
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:SAMPLE].sort().values
    batches = [data.__getitems__(numbers.tolist())[0] for numbers in chosen.split(AT_ONCE)]
    return sum(saturated_share(images) * len(images) for images in batches) / len(chosen)


def describe_saturation(share: float, clip_loss: bool) -> str:
    """A line for the plan."""
    percent = 100 * share
    line = f"{percent:.{0 if percent >= 10 else 1}f} % of the images' values are exactly 0 or 255"
    if share >= SATURATED and not clip_loss:
        return f"{line}: --clip_loss may help"
    if share < SATURATED and clip_loss:
        return f"{line}: --clip_loss is for images with more of them, and may do harm"
    return line
