"""The command as a person types it: real processes for the exit status, one line for what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.networks import small_network
from helpers.processes import run

from diffusers_progdistill.commands.main import COMMANDS, main


def distill_args(teacher, folder, *more):
    options = {
        "pretrained_teacher_model": teacher,
        "dataset_name": "digits",
        "output_dir": folder,
        "start_steps": 8,
        "end_steps": 4,
        "updates_per_stage": 2,
        "report_to": "none",
    }
    return ["distill", *(str(word) for name, value in options.items() for word in (f"--{name}", value)), *more]


WRONG = {
    "no teacher": (["--pretrained_teacher_model", "/nowhere/teacher"], "--pretrained_teacher_model"),
    "no data folder": (["--train_data_dir", "/nowhere"], "--train_data_dir"),
    "resolution": (["--resolution", "9"], "--resolution"),
    "steps": (["--start_steps", "12", "--end_steps", "5"], "--start_steps"),
    "equal steps": (["--start_steps", "4"], "--start_steps"),
    "zero": (["--updates_per_stage", "0"], "--updates_per_stage"),
    "negative": (["--train_batch_size", "-1"], "--train_batch_size"),
    "not a number": (["--learning_rate", "fast"], "--learning_rate"),
    "nan": (["--learning_rate", "nan"], "--learning_rate"),
    "small data": (["--train_batch_size", "1798"], "--train_batch_size"),
    "unknown flag": (["--learning_rte", "1"], "--learning_rte"),
    "abbreviation": (["--learn", "1"], "--learn"),
    "unknown tracker": (["--report_to", "paper"], "--report_to"),
    "missing tracker": (["--report_to", "aim"], "--report_to"),
    "token to wandb": (["--report_to", "wandb", "--hub_token", "x"], "--hub_token"),
    "fp16 on a cpu": (["--mixed_precision", "fp16"], "--mixed_precision"),
    "guidance": (["--guidance_scale", "2"], "--guidance_scale"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused_in_one_line_before_anything_is_written(case, teacher_folder, tmp_path, capsys):
    flags, named = WRONG[case]
    args = distill_args(teacher_folder, tmp_path / "out", *flags)
    if "--train_data_dir" in flags:
        del args[args.index("--dataset_name") : args.index("--dataset_name") + 2]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text, named",
    [
        ("learning_rte: 1\n", "learning_rte"),
        ("updates_per_stage: many\n", "updates_per_stage"),
        ("updates_per_stage: 1.5\n", "updates_per_stage"),
        ("use_ema: 3\n", "use_ema"),
        ("seed: true\n", "seed"),
        ("seed: [1]\n", "seed"),
        ("- seed\n", "--config"),
        ("seed: {\n", "--config"),
    ],
)
def test_yaml_is_checked_like_flags(text, named, teacher_folder, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(text)
    assert main(distill_args(teacher_folder, tmp_path / "out", "--config", str(tmp_path / "c.yaml"))) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1


def test_typed_flags_win_over_yaml(teacher_folder, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("updates_per_stage: 77\ntrain_batch_size: 33\nuse_ema: true\n")
    assert main(distill_args(teacher_folder, tmp_path / "o", "--config", str(tmp_path / "c.yaml"), "--dry_run")) == 0
    out = capsys.readouterr().out
    assert "global batch: 33" in out and "2 updates" in out and "77" not in out


@pytest.mark.parametrize("verb", ["distill", "convert"])
def test_a_teacher_that_cannot_be_converted_is_refused(verb, tmp_path, capsys):
    from diffusers import DDIMPipeline, DDIMScheduler
    from helpers.networks import tiny_unet

    DDIMPipeline(tiny_unet(), DDIMScheduler(rescale_betas_zero_snr=True)).save_pretrained(tmp_path / "zero")
    options = ["--pretrained_teacher_model", str(tmp_path / "zero"), "--dataset_name", "digits"]
    assert main([verb, *options, "--output_dir", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "zero terminal SNR" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_pages(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0 and "usage: progdistill" in capsys.readouterr().out


def test_help_and_import_need_no_torch():
    code = (
        "import sys, diffusers_progdistill; from diffusers_progdistill.commands.main import main; main(['--help']); "
    )
    code += "assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_sample_writes_a_grid(teacher_folder, tmp_path, capsys):
    out = tmp_path / "grid.png"
    assert (
        main(["sample", str(teacher_folder), "--num_images", "5", "--num_inference_steps", "2", "--output", str(out)])
        == 0
    )
    assert out.exists()
    assert main(["sample", str(teacher_folder), "--output", str(out)]) == 2
    assert "num_inference_steps" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "nothing"), "--output", str(out)]) == 2


LAUNCH = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]


@pytest.mark.parametrize("launch", [[], pytest.param(LAUNCH, marks=pytest.mark.slow)], ids=["alone", "accelerate"])
def test_the_example_scripts_run(teacher_folder, tmp_path, launch):
    examples = Path(__file__).parents[2] / "examples"
    words = distill_args(teacher_folder, tmp_path / "run")[1:]
    status, output = run([*launch, str(examples / "train_progressive_distillation.py"), *words])
    assert status == 0, output
    assert (tmp_path / "run" / "steps-4" / "model_index.json").exists()
    words = ["--dataset_name", "digits", "--output_dir", tmp_path / "t", "--max_train_steps", "2"]
    words += ["--model_config_name_or_path", small_network(tmp_path), "--report_to", "none"]
    status, output = run([*launch, str(examples / "train_teacher.py"), *map(str, words)])
    assert status == 0, output
    assert (tmp_path / "t" / "model_index.json").exists()


def test_tensorboard_by_default(teacher_folder, tmp_path):
    args = distill_args(teacher_folder, tmp_path / "run")
    del args[args.index("--report_to") : args.index("--report_to") + 2]
    assert main(args) == 0
    assert list((tmp_path / "run" / "logs").rglob("events.out.tfevents*"))


@pytest.mark.slow
def test_the_demo_in_small(tmp_path, capsys):
    assert main(["demo", "--output_dir", str(tmp_path / "demo"), "--scale", "0.02"]) == 0
    assert main(["demo", "--output_dir", str(tmp_path / "demo"), "--scale", "0.02"]) == 0
    assert "finished already" in capsys.readouterr().out
