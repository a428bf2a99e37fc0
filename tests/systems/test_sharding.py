"""FSDP 2 on two CPU processes: parameters are sharded, trained as whole ones are, written whole, and gone on with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from helpers.networks import tiny_unet
from helpers.systems import chain_config, chain_words, read_record
from safetensors.torch import load_file

from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.checkpointing import Checkpoints
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.optimizer import WeightAverage, make_optimizer


SCRIPT = Path(__file__).parents[1] / "helpers" / "sharded_run.py"
OPTIONS = {"updates_per_stage": 2, "use_ema": True, "checkpointing_steps": 2, "logging_steps": 2}


def test_whole_checkpoints_bring_back_weights_and_moments(tmp_path):
    """In one process: what is written is all that the next update depends on, and holds no pickle."""

    def update(model, optimizer):
        model(torch.ones(2, 1, 8, 8), torch.tensor([3, 500]))[0].square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    config = DistillationConfig(learning_rate=1e-2)
    one, other = tiny_unet(widths=(8,)), tiny_unet(widths=(8,))
    own, others = make_optimizer(config, one), make_optimizer(config, other)
    update(one, own)
    checkpoints = [Checkpoints(Accelerator(cpu=True), tmp_path, "steps-2") for _ in range(2)]
    checkpoints[0].attach({"model": one}, {"model": own}, {})
    checkpoints[0].save(1, {})
    assert {p.suffix for p in (tmp_path / "checkpoints" / "steps-2-00000001").iterdir()} == {".safetensors", ".json"}
    checkpoints[1].attach({"model": other}, {"model": others}, {})
    assert checkpoints[1].load()["update"] == 1
    update(one, own), update(other, others)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))


def test_the_average_of_plain_parameters_is_what_they_become():
    parameters = [torch.nn.Parameter(torch.tensor([1.0, 3.0]))]
    average = WeightAverage(parameters, decay=0.5)
    average.step(parameters)
    parameters[0].data.mul_(2)
    average.step(parameters)
    average.copy_to(parameters)
    # The first update is copied, the second has a decay of 2 / 11.
    assert torch.allclose(parameters[0], torch.tensor([1.0, 3.0]) * (2 / 11 + 2 * 9 / 11))


def run(words, stop=""):
    """The chain of these words on two sharded processes; its exit status and output."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "STOP": stop}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 400}
    made = subprocess.run([*launch, *words], env=environment, **options)
    return made.returncode, made.stdout


def weights(folder):
    return load_file(folder / "steps-2" / "unet" / "diffusion_pytorch_model.safetensors")


def vector(folder):
    return torch.cat([w.flatten() for w in weights(folder).values()]).double()


@pytest.mark.slow
def test_two_sharded_processes_train_what_one_does_and_resume(teacher_folder, tmp_path):
    # Two processes of two parts of four images, and one of sixteen.
    split = {**OPTIONS, "train_batch_size": 4, "gradient_accumulation_steps": 2}
    words = {name: chain_words(teacher_folder, tmp_path / name, **split) for name in ("sharded", "cut")}
    status, said = run(words["sharded"])
    assert status == 0, said
    assert "running on 2 processes on cpu (FSDP 2, parameters sharded)" in said
    assert "each process holds 0.50 of the parameters" in said
    hardware = read_record(tmp_path / "sharded")["hardware"]
    assert hardware["sharded"] and hardware["distributed_type"] == "FSDP" and hardware["num_processes"] == 2

    distill(chain_config(teacher_folder, tmp_path / "one", **{**OPTIONS, "train_batch_size": 16}))
    one = vector(tmp_path / "one")
    assert (one - vector(tmp_path / "sharded")).norm() / one.norm() <= 2e-5

    assert run(words["cut"], stop="1")[0] != 0
    (checkpoint,) = (tmp_path / "cut" / "checkpoints").glob("steps-2-*")
    assert {p.suffix for p in checkpoint.iterdir()} == {".safetensors", ".json"}
    shutil.copytree(tmp_path / "cut", tmp_path / "fewer")
    status, said = run(words["cut"])
    assert status == 0 and f"going on from checkpoint {checkpoint.name}" in said, said
    assert all(torch.equal(w, weights(tmp_path / "cut")[k]) for k, w in weights(tmp_path / "sharded").items())
    # One process that shards nothing goes on from the same checkpoint.
    distill(chain_config(teacher_folder, tmp_path / "fewer", **{**OPTIONS, "train_batch_size": 16}))
    assert (one - vector(tmp_path / "fewer")).norm() / one.norm() <= 2e-5
