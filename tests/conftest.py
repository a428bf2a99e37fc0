import os
import sys
import tempfile
from pathlib import Path


# A Hub on loopback, before anything imports the client, which reads its address once. Nothing reaches the network.
sys.path.insert(0, str(Path(__file__).parent / "hub"))
from hub_server import Hub  # noqa: E402


HUB = Hub()
HUB.__enter__()
HF_HOME = tempfile.TemporaryDirectory()
os.environ.pop("HF_TOKEN", None)
os.environ.update(HUB.environment(HF_HOME.name, token=None))
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


@pytest.fixture
def hub(monkeypatch):
    """The Hub, empty, with a token in the environment that may write to the namespaces `me` and `my-org`."""
    HUB.reset()
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    yield HUB
    assert HUB.unhandled == []
    assert HUB.tokens_at_storage == 0


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    """A teacher with random weights on the canonical schedule."""
    from diffusers_progdistill import ProgressiveDistillationScheduler, save_pipeline

    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    save_pipeline(tiny_unet(), ProgressiveDistillationScheduler(), folder)
    return folder
