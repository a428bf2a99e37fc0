"""The accelerate configs that are shipped: accelerate reads them, and a CPU runs them as far as it can."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from diffusers import UNet2DModel
from helpers.networks import tiny_unet
from helpers.systems import chain_words, launch_environment, read_record, set_environment, watch_precision

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training.isolation import isolated
from diffusers_progdistill.training.sharding import WRAPPED, prepare


ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "configs" / "accelerate"
CONFIGS = sorted(path.name for path in FOLDER.iterdir())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shipped_config_is_read_and_run(name, teacher_folder, tmp_path, monkeypatch, capsys):
    config = load_config_from_file(str(FOLDER / name))
    assert config.num_processes == 2 and config.mixed_precision == "bf16"
    # One process of the two, as the launcher would start it.
    set_environment(monkeypatch, launch_environment("--main_process_port=0", f"--config_file={FOLDER / name}"))
    assert os.environ.get("ACCELERATE_USE_FSDP", "false") == ("true" if name == "fsdp.yaml" else "false")
    seen = watch_precision(monkeypatch)
    assert main(chain_words(teacher_folder, tmp_path / "run")) == 0
    assert set(seen) == {torch.bfloat16} and read_record(tmp_path / "run")["hardware"]["mixed_precision"] == "bf16"
    assert ("FSDP was asked for" in capsys.readouterr().out) == (name == "fsdp.yaml")


def test_the_shipped_fsdp_config_wraps_the_blocks_of_a_unet(monkeypatch):
    set_environment(monkeypatch, launch_environment("--main_process_port=0", f"--config_file={FOLDER / 'fsdp.yaml'}"))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and tuple(plugin.transformer_cls_names_to_wrap) == WRAPPED
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "norm_num_groups": 4}
    plugin.set_auto_wrap_policy(UNet2DModel(8, 1, 1, block_out_channels=(8,), layers_per_block=1, **blocks))
    wrapped = plugin.auto_wrap_policy.keywords["transformer_layer_cls"]
    assert {c.__name__ for c in wrapped} == set(WRAPPED)


class Sharding:
    """An accelerator that prepares nothing, to see what it was asked to wrap."""

    is_fsdp2 = True

    def __init__(self, names):
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
        plugin.transformer_cls_names_to_wrap = names
        self.state = type("State", (), {"fsdp_plugin": plugin})
        self.plugin = plugin

    def prepare(self, *parts):
        return parts


@pytest.mark.parametrize(
    "names, found",
    [
        (["ResnetBlock2D", "Attention"], ["ResnetBlock2D"]),
        (None, ["ResnetBlock2D"]),
        (["DownBlock2D", "BasicTransformerBlock"], ["DownBlock2D"]),
        (["LlamaDecoderLayer"], None),
    ],
)
def test_only_the_blocks_that_a_network_has_are_wrapped(names, found, monkeypatch):
    set_environment(monkeypatch, {})
    unet, accelerator = tiny_unet(widths=(8,)), Sharding(names)
    # No network without attention is refused for that; one that is left whole is, and one without any such block.
    says = "accelerate left the parameters whole" if found else "LlamaDecoderLayer names no part of the model"
    with pytest.raises(InputError, match=says):
        prepare(accelerator, unet, torch.optim.AdamW(unet.parameters()))
    if found:
        assert accelerator.plugin.transformer_cls_names_to_wrap == found


def test_without_sharding_the_parameters_are_the_models_own(monkeypatch):
    set_environment(monkeypatch, {})
    with isolated():
        unet = tiny_unet(widths=(8,))
        _, _, parameters = prepare(Accelerator(cpu=True), unet, torch.optim.AdamW(unet.parameters()))
        assert all(a is b for a, b in zip(parameters, unet.parameters(), strict=True))


def launch(flags, words, **environment):
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags]
    command += ["-m", "diffusers_progdistill.commands.main", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=400)


CPU = ("--cpu", "--num_processes=1")


def test_accelerate_launch_itself(teacher_folder, tmp_path):
    made = launch([*CPU, "--mixed_precision=bf16"], chain_words(teacher_folder, tmp_path / "run"))
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("running on 1 process on cpu, mixed_precision bf16")
    assert read_record(tmp_path / "run")["hardware"]["mixed_precision"] == "bf16"


@pytest.mark.slow
@pytest.mark.parametrize("typed", [None, "no"])
def test_accelerate_launch_with_a_config_file(typed, teacher_folder, tmp_path):
    file = tmp_path / "accelerate.yaml"
    file.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nnum_processes: 1\nuse_cpu: true\n"
        "mixed_precision: bf16\n"
    )
    options = {"mixed_precision": typed} if typed else {}
    made = launch([f"--config_file={file}"], chain_words(teacher_folder, tmp_path / "run", **options))
    assert made.returncode == 0, made.stderr
    assert read_record(tmp_path / "run")["hardware"]["mixed_precision"] == (typed or "bf16")


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="the configs are for two GPUs")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_shipped_config_with_its_two_processes(name, teacher_folder, tmp_path):
    made = launch([f"--config_file={FOLDER / name}"], chain_words(teacher_folder, tmp_path / "run"))
    assert made.returncode == 0, made.stderr
    hardware = read_record(tmp_path / "run")["hardware"]
    assert (hardware["num_processes"], hardware["mixed_precision"]) == (2, "bf16")
    # On a CPU accelerate takes DDP for both.
    assert "2 processes on cpu (DDP), mixed_precision bf16" in made.stdout
    assert ("FSDP was asked for" in made.stdout) == (name == "fsdp.yaml")
