"""Models on the Hub: refused before anything large is downloaded, named variants, and no network when all is there."""

import json

import huggingface_hub.constants
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from helpers.networks import tiny_unet

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.families import open_model
from diffusers_progdistill.pipelines.loading import ModelSource, read_network_config


def files_of(folder, variant=None, index=None):
    """A stock teacher as the files of a repository."""
    unet = tiny_unet(channels=1, widths=(8,))
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder, variant=variant)
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **(index or {})}))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def load(tmp_path, **options):
    return open_model(ModelSource("me/teacher", cache_dir=str(tmp_path / "cache"), **options)).pipeline


@pytest.fixture
def offline(monkeypatch):
    """A function after which nothing may reach the Hub, as HF_HUB_OFFLINE=1 makes it."""
    return lambda: monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("revision", [None, "v1"])
def test_a_model_in_the_cache_needs_no_network(hub, tmp_path, offline, variant, revision):
    repo = hub.add_repo("me/teacher", files=files_of(tmp_path / "files", variant))
    repo.tags["v1"] = repo.head.oid
    options = {"variant": variant, "revision": revision}
    online = load(tmp_path, **options)
    hub.requests.clear()
    offline()
    again = load(tmp_path, **options)
    assert not hub.requests
    states = [model.unet.state_dict() for model in (online, again)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_commands_need_no_network_when_all_is_there(hub, tmp_path, offline, monkeypatch):
    hub.add_repo("me/teacher", files=files_of(tmp_path / "files"))
    cache = f"--cache_dir={tmp_path / 'cache'}"
    sample = ["sample", "me/teacher", "--num_images=1", "--num_inference_steps=1", f"--output={tmp_path / 'a.png'}"]
    distill = ["distill", "--pretrained_teacher_model=me/teacher", "--dataset_name=digits", "--report_to=none"]
    distill += ["--start_steps=2", "--end_steps=1", "--updates_per_stage=1", "--conversion_updates=1", "--dry_run"]
    assert main([*sample, cache]) == 0
    hub.requests.clear()
    offline()
    assert main([*sample, cache]) == 0
    assert main([*distill, "--train_batch_size=4", cache, f"--output_dir={tmp_path / 'run'}"]) == 0
    assert not hub.requests


def test_what_is_not_in_the_cache_is_one_line(hub, tmp_path, offline, capsys):
    offline()
    assert main(["sample", "me/teacher", f"--cache_dir={tmp_path}", f"--output={tmp_path / 'a.png'}"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("progdistill")]
    assert len(lines) == 1 and "me/teacher" in lines[0]


def test_other_components_are_refused_before_they_are_downloaded(hub, tmp_path):
    files = files_of(tmp_path / "files", index={"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]})
    hub.add_repo("me/teacher", files={**files, "vqvae/diffusion_pytorch_model.safetensors": b"large"})
    with pytest.raises(InputError, match="vqvae"):
        load(tmp_path)
    assert not any("safetensors" in str(request) for request in hub.requests)


def test_a_repository_of_half_precision_names_its_variant(hub, tmp_path):
    hub.add_repo("me/teacher", files=files_of(tmp_path / "files", "fp16"))
    with pytest.raises(InputError, match="--variant fp16"):
        load(tmp_path)
    assert load(tmp_path, variant="fp16").unet.dtype == torch.float32


def test_a_class_that_diffusers_does_not_know(hub, tmp_path):
    """Its network is used, on its schedule, as that of a folder is."""
    hub.add_repo("me/teacher", files=files_of(tmp_path / "files", index={"_class_name": "MyPipeline"}))
    source = ModelSource("me/teacher", cache_dir=str(tmp_path / "cache"))
    assert open_model(source).pipeline.unet.config.block_out_channels == [8]
    assert open_model(source).pipeline.unet.config.block_out_channels == [8]


@pytest.mark.parametrize("name", ["me/nothing", "nobody/teacher"])
def test_a_name_that_is_not_there(hub, tmp_path, name):
    with pytest.raises(InputError) as error:
        open_model(ModelSource(name, "--pretrained_teacher_model", cache_dir=str(tmp_path)))
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("where", ["unet/config.json", "config.json"])
def test_the_config_of_a_network_on_the_hub(hub, tmp_path, where):
    """Of a pipeline or of the network itself."""
    config = files_of(tmp_path / "files")["unet/config.json"]
    hub.add_repo("me/teacher", files={where: config})
    read = read_network_config(ModelSource("me/teacher", cache_dir=str(tmp_path / "cache")))
    assert read["block_out_channels"] == [8] and "_class_name" not in read


@pytest.mark.parametrize("where", [".", "unet", "unet/config.json"])
def test_the_config_of_a_network_in_a_folder(tmp_path, where):
    files_of(tmp_path)
    assert read_network_config(ModelSource(str(tmp_path / where)))["block_out_channels"] == [8]


@pytest.mark.parametrize("content", [{"_class_name": "UNet2DConditionModel"}, {"_class_name": "AutoencoderKL"}, []])
def test_the_config_of_another_network(tmp_path, content):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError):
        read_network_config(ModelSource(str(tmp_path)))
