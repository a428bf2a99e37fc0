"""A process makes any number of runs, of any kind, and each is as if it were the only one."""

import os

import diffusers
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from helpers.systems import chain_config, read_record, set_environment, watch_precision

from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.isolation import isolated


STATES = (AcceleratorState, PartialState, GradientState)


def test_runs_of_every_kind_in_one_process(teacher_folder, tmp_path, monkeypatch):
    set_environment(monkeypatch, {})
    seen = watch_precision(monkeypatch)
    runs = {
        "fp32": ({}, torch.float32, 1),
        "bf16": ({"mixed_precision": "bf16"}, torch.bfloat16, 1),
        "two parts": ({"gradient_accumulation_steps": 2, "train_batch_size": 4}, torch.float32, 2),
        "four parts": ({"gradient_accumulation_steps": 4, "train_batch_size": 2}, torch.float32, 4),
    }
    for name, (options, precision, parts) in runs.items():
        seen.clear()
        distill(chain_config(teacher_folder, tmp_path / name, **options))
        # Two updates, since the student has two steps.
        assert seen == [precision] * 2 * parts
        hardware = read_record(tmp_path / name)["hardware"]
        assert hardware["gradient_accumulation_steps"] == parts
        assert hardware["mixed_precision"] == options.get("mixed_precision", "no")
        with pytest.raises(InputError, match="fp16 needs a GPU"):
            distill(chain_config(teacher_folder, tmp_path / "fp16", mixed_precision="fp16"))
    # However a batch is split, it is the same one.
    losses = [read_record(tmp_path / name)["stages"][0]["loss"] for name in ("fp32", "two parts", "four parts")]
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-5)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_of_a_run(fails, monkeypatch):
    set_environment(monkeypatch, {"ACCELERATE_MIXED_PRECISION": "no"})
    diffusers.utils.logging.enable_progress_bar()
    with isolated():
        callers = Accelerator(cpu=True, gradient_accumulation_steps=3)
        before = [dict(state._shared_state) for state in STATES], dict(os.environ)
        try:
            with isolated():
                own = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=5)
                assert (own.mixed_precision, own.gradient_accumulation_steps) == ("bf16", 5)
                os.environ.update(ACCELERATE_MIXED_PRECISION="bf16", ACCELERATE_USE_FSDP="true", RANK="7")
                torch.set_float32_matmul_precision("high")
                diffusers.utils.logging.disable_progress_bar()
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
        assert ([dict(state._shared_state) for state in STATES], dict(os.environ)) == before
        assert (callers.mixed_precision, callers.gradient_accumulation_steps) == ("no", 3)
        assert torch.get_float32_matmul_precision() == "highest"
        assert diffusers.utils.logging.is_progress_bar_enabled()


def test_the_environment_of_a_launcher_counts_in_every_run(teacher_folder, tmp_path, monkeypatch):
    set_environment(monkeypatch, {"ACCELERATE_MIXED_PRECISION": "bf16"})
    for name in ("first", "second"):
        distill(chain_config(teacher_folder, tmp_path / name))
        assert read_record(tmp_path / name)["hardware"]["mixed_precision"] == "bf16"
