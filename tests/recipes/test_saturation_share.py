"""The share of values at the ends of the range."""

import pytest
import torch

from diffusers_progdistill.data import load_digits
from diffusers_progdistill.training import plan as saturation


class Images:
    """A data set in memory that remembers what it was asked for."""

    def __init__(self, images):
        self.images, self.asked = images, []

    def __len__(self):
        return len(self.images)

    def __getitems__(self, numbers):
        self.asked.append(numbers)
        return self.images[torch.as_tensor(numbers)], None


@pytest.mark.parametrize("black, white", [(0, 0), (3, 0), (0, 5), (4, 12), (48, 0)])
def test_it_counts_black_and_white(black, white):
    images = torch.arange(48, dtype=torch.uint8) + 1
    images[:black], images[48 - white :] = 0, 255
    images = images.reshape(1, 3, 4, 4)
    assert saturation.saturated_share(images) == pytest.approx((black + white) / 48)
    assert saturation.share_of_data(Images(images)) == pytest.approx((black + white) / 48)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1024, 3000])
def test_it_looks_at_a_bounded_sample(count):
    # Every third image is black.
    images = ((torch.arange(count) % 3 > 0) * 7).to(torch.uint8).view(-1, 1, 1, 1)
    data, again = Images(images), Images(images)
    share = saturation.share_of_data(data)
    assert share == saturation.share_of_data(again) and data.asked == again.asked
    numbers = [n for part in data.asked for n in part]
    assert len(numbers) == len({*numbers}) == min(count, saturation.SAMPLE)
    assert max(len(part) for part in data.asked) <= saturation.AT_ONCE
    assert share == pytest.approx(sum(n % 3 == 0 for n in numbers) / len(numbers))
    assert share == pytest.approx((images == 0).float().mean().item(), abs=0.05)


def test_the_digits_are_half_black():
    data = load_digits()
    exact = ((data.all_images() == 0) | (data.all_images() == 255)).float().mean().item()
    assert saturation.share_of_data(data) == pytest.approx(exact, abs=0.01) and exact > 0.5


@pytest.mark.parametrize(
    "share, clip_loss, said",
    [
        (0.27, False, "27 % of the images' values are exactly 0 or 255: --clip_loss may help"),
        (0.27, True, "27 % of the images' values are exactly 0 or 255"),
        (0.019, False, "1.9 % of the images' values are exactly 0 or 255"),
        (0.019, True, "1.9 % of the images' values are exactly 0 or 255: --clip_loss is for images with more"),
        (0.0, False, "0.0 % of the images' values are exactly 0 or 255"),
        (1.0, False, "100 % of the images' values are exactly 0 or 255: --clip_loss may help"),
    ],
)
def test_one_sentence_for_the_plan(share, clip_loss, said):
    line = saturation.describe_saturation(share, clip_loss)
    assert line.startswith(said) and "\n" not in line
    assert (":" in said) == (":" in line)
