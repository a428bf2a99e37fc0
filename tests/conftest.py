import os


# Nothing in the suite may reach the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest  # noqa: E402
import torch  # noqa: E402
from diffusers import UNet2DModel  # noqa: E402


torch.set_num_threads(1)


def tiny_unet(size=8, channels=1, widths=(8, 16), **options):
    """A network of a few thousand parameters."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=options.pop("out_channels", channels),
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        norm_num_groups=4,
        add_attention=False,
        **options,
    )
    return unet.eval()


@pytest.fixture
def unet():
    return tiny_unet()


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    """A teacher with random weights on the canonical schedule."""
    from diffusers_progdistill import ProgressiveDistillationScheduler, save_pipeline

    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    save_pipeline(tiny_unet(), ProgressiveDistillationScheduler(), folder)
    return folder
