import copy
import gc
import os
import tempfile


# Before torch is imported, here and in what tests start: threads that spin and wait for each other cost ten times what
# they save when every worker has some.
os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")})

# A Hub on loopback, before anything imports the client, which reads its address once. Nothing reaches the network.
from helpers.hub_server import Hub  # noqa: E402


HUB = Hub()
HUB.__enter__()
HF_HOME = tempfile.TemporaryDirectory()
os.environ.pop("HF_TOKEN", None)
os.environ.update(HUB.environment(HF_HOME.name, token=None))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest  # noqa: E402
import torch  # noqa: E402
from helpers.networks import tiny_unet  # noqa: E402
from helpers.processes import chain_options  # noqa: E402
from helpers.python_server import SERVER  # noqa: E402

from diffusers_progdistill import ProgressiveDistillationScheduler, save_pipeline  # noqa: E402
from diffusers_progdistill.commands.main import main  # noqa: E402
from diffusers_progdistill.evaluation import extractors  # noqa: E402
from diffusers_progdistill.evaluation.images import hash_images  # noqa: E402
from diffusers_progdistill.identity import content_key  # noqa: E402


torch.set_num_threads(1)


def pytest_collection_finish():
    """
    What was imported stays, so collectors need not look at it again: half the time of a small run is that of the
    collections between its stages.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    SERVER.close()
    HUB.__exit__()
    HF_HOME.cleanup()


@pytest.fixture(scope="session", autouse=True)
def one_classifier():
    """A classifier of the same images is trained once, whatever cache a test has."""
    made, train = {}, extractors.train_classifier

    def train_once(data, *options):
        key = content_key(*options, hash_images(data), data.labels)
        if key not in made:
            made[key] = train(data, *options)
        return copy.deepcopy(made[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, "train_classifier", train_once)
        yield


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
    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    save_pipeline(tiny_unet(), ProgressiveDistillationScheduler(), folder)
    return folder


@pytest.fixture(scope="session")
def whole_chain(teacher_folder, tmp_path_factory):
    """The chain of `processes.chain_options` that nobody stops."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(["distill", *chain_options(teacher_folder, folder)]) == 0
    assert not (folder / "checkpoints").exists()
    return folder
