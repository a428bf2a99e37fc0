"""accelerate's own settings count where the command line says nothing, and what cannot be done is refused."""

import sys
from types import SimpleNamespace

import pytest
import torch
from helpers.systems import chain_words, launch_environment, read_record, set_environment, watch_precision

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.hub.model_card import make_card
from diffusers_progdistill.training.isolation import isolated
from diffusers_progdistill.training.launcher import (
    make_evaluation_accelerator,
    resolve_accumulation,
    resolve_precision,
)


CPU = ("--cpu", "--num_processes=1")
CONFIG = "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nnum_processes: 1\nuse_cpu: true\n"


def config_file(tmp_path, text):
    file = tmp_path / "accelerate.yaml"
    file.write_text(CONFIG + text)
    return f"--config_file={file}"


def asked(case, tmp_path):
    """The environment of each way of asking for bf16."""
    if case == "flag":
        return launch_environment(*CPU, "--mixed_precision=bf16")
    if case == "config file":
        return launch_environment(config_file(tmp_path, "mixed_precision: bf16\n"))
    return {"ACCELERATE_MIXED_PRECISION": "bf16"}


@pytest.mark.parametrize("case", ["flag", "config file", "environment"])
def test_the_precision_of_the_launcher_is_used_and_told(case, teacher_folder, tmp_path, monkeypatch, capsys):
    set_environment(monkeypatch, asked(case, tmp_path))
    seen = watch_precision(monkeypatch)
    assert main(chain_words(teacher_folder, tmp_path / "run")) == 0
    assert set(seen) == {torch.bfloat16}
    record = read_record(tmp_path / "run")
    assert record["settings"]["mixed_precision"] == record["hardware"]["mixed_precision"] == "bf16"
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("running on 1 process on cpu, mixed_precision bf16")
    card = str(make_card(tmp_path / "run", record))
    assert "Hardware: 1 process on cpu, mixed\\_precision bf16, gradient\\_accumulation\\_steps 1" in card
    assert "| mixed\\_precision | bf16 |" in card


def test_what_is_typed_wins_and_another_precision_does_not_resume(teacher_folder, tmp_path, monkeypatch, capsys):
    set_environment(monkeypatch, {**asked("flag", tmp_path), "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"})
    seen = watch_precision(monkeypatch)
    typed = {"mixed_precision": "no", "gradient_accumulation_steps": 2}
    assert main(chain_words(teacher_folder, tmp_path / "run", **typed)) == 0
    assert set(seen) == {torch.float32} and len(seen) == 2 * 2
    hardware = read_record(tmp_path / "run")["hardware"]
    assert (hardware["mixed_precision"], hardware["gradient_accumulation_steps"]) == ("no", 2)
    # The launcher's is another precision than that of the run: it is not gone on with.
    assert main(chain_words(teacher_folder, tmp_path / "run", gradient_accumulation_steps=2)) == 2
    assert "--mixed_precision no -> bf16" in capsys.readouterr().err
    # A record of before says "no", as does a run that nobody asks for anything else.
    set_environment(monkeypatch, {})
    assert main(chain_words(teacher_folder, tmp_path / "run", train_batch_size=16)) == 0
    assert "finished already" in capsys.readouterr().out


def given(**options):
    return SimpleNamespace(**{"mixed_precision": None, "gradient_accumulation_steps": None, **options})


@pytest.mark.parametrize(
    "variables, options, precision, parts",
    [
        ({}, {}, "no", 1),
        ({"ACCELERATE_MIXED_PRECISION": "BF16"}, {}, "bf16", 1),
        ({"ACCELERATE_MIXED_PRECISION": ""}, {}, "no", 1),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, {"mixed_precision": "fp16"}, "fp16", 1),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "3"}, {}, "no", 3),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto"}, {"gradient_accumulation_steps": 1}, "no", 1),
    ],
)
def test_who_decides(variables, options, precision, parts, monkeypatch):
    set_environment(monkeypatch, variables)
    assert resolve_precision(given(**options))[0] == precision and resolve_accumulation(given(**options)) == parts


@pytest.mark.parametrize("value", ["0", "-1", "auto", "1.5", "two"])
def test_no_number_of_parts(value, monkeypatch):
    set_environment(monkeypatch, {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": value})
    with pytest.raises(InputError, match=f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={value} must be a positive number"):
        resolve_accumulation(given())


FSDP = ("--use_fsdp", "--num_processes=2", "--num_machines=1", "--main_process_port=0")
FSDP2 = (*FSDP, "--fsdp_version=2")
# What is asked for, as flags of the launcher or as variables, and what the one line says of it.
REFUSED = {
    "DeepSpeed by its flag": (("--use_deepspeed", "--num_processes=2", "--main_process_port=0"), "--use_deepspeed"),
    "DeepSpeed by the variable": ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
    "DeepSpeed in another word": ({"ACCELERATE_USE_DEEPSPEED": "1"}, "ACCELERATE_USE_DEEPSPEED"),
    "DeepSpeed on a CPU": ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_USE_CPU": "true"}, "DeepSpeed"),
    "a stage of DeepSpeed": ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, "ACCELERATE_DEEPSPEED_ZERO_STAGE"),
    "FSDP 1 by its flag": ((*FSDP, "--fsdp_version=1"), "fsdp_version: 1"),
    "FSDP without a version": ({"ACCELERATE_USE_FSDP": "true"}, "--fsdp_version 2"),
    "wrapped by size": ((*FSDP2, "--fsdp_auto_wrap_policy=SIZE_BASED_WRAP"), "TRANSFORMER_BASED_WRAP"),
    "on the CPU in between": ((*FSDP2, "--fsdp_offload_params=true"), "fsdp_offload_params"),
    "FSDP's own checkpoints of activations": (
        (*FSDP2, "--fsdp_activation_checkpointing=true"),
        "--gradient_checkpointing",
    ),
    "Megatron": ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "--use_megatron_lm"),
    "tensor parallelism": ((*FSDP2, "--use_parallelism_config", "--parallelism_config_tp_size=2"), "parallelism"),
    "context parallelism": ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "--use_parallelism_config"),
    "fp16 on a CPU": ((*CPU, "--mixed_precision=fp16"), "ACCELERATE_MIXED_PRECISION=fp16 needs a GPU"),
    "fp8": ({"ACCELERATE_MIXED_PRECISION": "fp8"}, "must be one of no, fp16, bf16"),
    "no precision at all": ({"ACCELERATE_MIXED_PRECISION": "half"}, "ACCELERATE_MIXED_PRECISION=half"),
    "no such compiler": ({"ACCELERATE_DYNAMO_BACKEND": "fast"}, "ACCELERATE_DYNAMO_BACKEND=fast must be one of"),
    "neither true nor false": ({"ACCELERATE_USE_FSDP": "maybe"}, "ACCELERATE_USE_FSDP=maybe must be true or false"),
}


COMMANDS = [("distill", case) for case in REFUSED]
COMMANDS += [(command, "DeepSpeed by the variable") for command in ("convert", "train-teacher")]


@pytest.mark.parametrize("command, case", COMMANDS)
def test_what_cannot_be_done_is_refused_in_one_line(command, case, tmp_path, monkeypatch, capsys):
    asking, says = REFUSED[case]
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    set_environment(monkeypatch, asking if isinstance(asking, dict) else launch_environment(*asking))
    capsys.readouterr()
    # Nothing is looked for before: neither the teacher nor the images are there.
    words = [command, "--train_data_dir", str(tmp_path / "none"), "--output_dir", str(tmp_path / "run")]
    words += [] if command == "train-teacher" else ["--pretrained_teacher_model", str(tmp_path / "none")]
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == "" and says in said.err
    assert said.err.startswith("progdistill: error: ") and said.err.count("\n") == 1
    assert not (tmp_path / "run").exists() and "deepspeed" not in sys.modules


def test_fsdp_that_does_not_shard_here_is_told(teacher_folder, tmp_path, monkeypatch, capsys):
    set_environment(monkeypatch, launch_environment(*FSDP2))
    assert main(chain_words(teacher_folder, tmp_path / "run")) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith("; FSDP was asked for, but accelerate does not shard on cpu")
    hardware = read_record(tmp_path / "run")["hardware"]
    assert not hardware["sharded"] and hardware["distributed_type"] == "NO"


def test_an_evaluation_says_that_it_is_made_in_fp32(monkeypatch, capsys):
    set_environment(monkeypatch, {"ACCELERATE_MIXED_PRECISION": "bf16"})
    with isolated():
        assert make_evaluation_accelerator().mixed_precision == "no"
    assert capsys.readouterr().out == "evaluating in fp32: ACCELERATE_MIXED_PRECISION=bf16 counts in training only\n"


def test_an_evaluation_refuses_as_training_does(tmp_path, monkeypatch, capsys):
    set_environment(monkeypatch, {"ACCELERATE_USE_DEEPSPEED": "true"})
    assert main(["evaluate", str(tmp_path / "none"), "--dataset_name", "digits"]) == 2
    assert "DeepSpeed" in capsys.readouterr().err
