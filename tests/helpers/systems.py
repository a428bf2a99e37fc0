"""What `accelerate launch` makes of its flags, without a process; and small chains that say in what they were run."""

import json
import os
from pathlib import Path

import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)

from diffusers_progdistill.training.config import DistillationConfig


OURS = ("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_", "MEGATRON_LM_")


def launch_environment(*flags: str) -> dict[str, str]:
    """The variables that `accelerate launch FLAGS script.py` sets for its processes."""
    args = launch_command_parser().parse_args([*flags, "script.py"])
    args, _, _ = _validate_launch_command(args)
    if args.use_deepspeed and not args.cpu:
        args.deepspeed_fields_from_accelerate_config = ""
        environment = prepare_deepspeed_cmd_env(args)[1]
    elif (args.use_fsdp or args.use_megatron_lm or args.multi_gpu) and not args.cpu:
        environment = prepare_multi_gpu_env(args)
    else:
        environment = prepare_simple_launcher_cmd_env(args)[1]
    return {k: v for k, v in environment.items() if k.startswith(OURS)}


def chain_words(teacher, folder, **options) -> list[str]:
    """The command line of a chain of one student and two updates."""
    values = {"pretrained_teacher_model": teacher, "output_dir": folder, "dataset_name": "digits", **SMALL, **options}
    return ["distill", *(f"--{k}={v}" for k, v in values.items())]


def chain_config(teacher, folder, **options) -> DistillationConfig:
    """The same as a config."""
    return DistillationConfig(
        pretrained_teacher_model=str(teacher), output_dir=str(folder), dataset_name="digits", **{**SMALL, **options}
    )


SMALL = {"start_steps": 4, "end_steps": 2, "updates_per_stage": 1, "train_batch_size": 8, "report_to": "none"}


def read_record(folder) -> dict:
    return json.loads((Path(folder) / "chain.json").read_text())


def watch_precision(monkeypatch) -> list[torch.dtype]:
    """Notes in which type autocast computes each forward pass of a network in training; fp32 without it."""
    from diffusers import UNet2DModel

    seen, forward = [], UNet2DModel.forward

    def noted(self, *args, **kwargs):
        if self.training:
            is_on = torch.is_autocast_enabled("cpu")
            seen.append(torch.get_autocast_dtype("cpu") if is_on else torch.float32)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(UNet2DModel, "forward", noted)
    return seen


def set_environment(monkeypatch, variables: dict[str, str]):
    """Nothing of accelerate's but this."""
    for name in [k for k in os.environ if k.startswith(OURS)]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
