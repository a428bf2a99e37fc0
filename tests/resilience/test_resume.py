"""Invariant 4: a run that was stopped at any moment and started again is the run that was never stopped."""

import os
import random
import shutil
import signal
from pathlib import Path

import pytest
from processes import chain_options, command, logged, run, start, torchrun, wait_for, weights


@pytest.fixture(scope="module")
def whole(teacher_folder, tmp_path_factory):
    """The chain that nobody stops."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    status, output = run(command("distill", *chain_options(teacher_folder, folder)))
    assert status == 0, output
    assert not (folder / "checkpoints").exists()
    return folder


def assert_same(folder, whole):
    assert weights(folder) == weights(whole)
    assert logged(folder) == logged(whole)


def stop_often(words, folder, signum, moments, seed):
    """Stop the command this many times after random numbers of seconds, then let it end. Returns the statuses."""
    chance, statuses = random.Random(seed), []
    for _ in range(moments):
        process = start(words)
        # The first seconds go into imports; what happens afterwards is what is to be stopped.
        if wait_for(lambda: (folder / "chain.json").exists(), process):
            try:
                process.wait(chance.uniform(0, 6))
            except Exception:
                os.kill(process.pid, signum)
        process.communicate()
        statuses.append(process.returncode)
    status, output = run(words)
    assert status == 0, output
    return statuses


@pytest.mark.parametrize("moments, seed", [(2, 0), pytest.param(18, 1, marks=pytest.mark.slow)])
def test_killed(teacher_folder, whole, tmp_path, moments, seed):
    folder = tmp_path / "run"
    words = command("distill", *chain_options(teacher_folder, folder))
    for k in range(0, moments, 3):
        shutil.rmtree(folder, ignore_errors=True)
        stop_often(words, folder, signal.SIGKILL, min(3, moments - k), seed + k)
        assert_same(folder, whole)


@pytest.mark.parametrize("moments, seed", [(1, 0), pytest.param(9, 1, marks=pytest.mark.slow)])
def test_terminated(teacher_folder, whole, tmp_path, moments, seed):
    folder = tmp_path / "run"
    words = command("distill", *chain_options(teacher_folder, folder))
    for k in range(0, moments, 3):
        shutil.rmtree(folder, ignore_errors=True)
        statuses = stop_often(words, folder, signal.SIGTERM, min(3, moments - k), seed + k)
        assert set(statuses) <= {143, 0}
        assert_same(folder, whole)


@pytest.mark.parametrize("signum, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_its_own_status(teacher_folder, whole, tmp_path, signum, status):
    folder = tmp_path / "run"
    options = {"checkpointing_steps": 1000, "updates_per_stage": 30}
    words = command("distill", *chain_options(teacher_folder, folder, **options))
    process = start(words)
    assert wait_for(lambda: (folder / "metrics.jsonl").exists(), process)
    os.kill(process.pid, signum)
    output = process.communicate()[0]
    assert process.returncode == status and "the same command goes on" in output
    found, output = run(words)
    assert found == 0 and "going on from checkpoint" in output or (folder / "steps-2").exists()
    assert_same(folder, whole)


def test_two_processes_stop_together(teacher_folder, tmp_path):
    """torchrun hands SIGTERM on; every process ends after the same update, and the run goes on from there."""
    options = {"train_batch_size": 8, "updates_per_stage": 40, "end_steps": 2}
    whole, folder = tmp_path / "whole", tmp_path / "run"
    status, output = run(torchrun("distill", *chain_options(teacher_folder, whole, **options)))
    assert status == 0, output
    words = torchrun("distill", *chain_options(teacher_folder, folder, **options))
    process = start(words)
    assert wait_for(lambda: (folder / "metrics.jsonl").exists(), process)
    os.kill(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert list((folder / "checkpoints").glob("steps-*")) or (folder / "steps-2").exists(), output
    status, output = run(words)
    assert status == 0, output
    assert weights(folder) == weights(whole) and logged(folder) == logged(whole)


def test_the_child_of_accelerate_launch_does_not_outlive_it(teacher_folder, tmp_path):
    folder = tmp_path / "run"
    launch = [*command()[:2], "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    script = str(Path(__file__).parents[2] / "examples" / "train_progressive_distillation.py")
    options = chain_options(teacher_folder, folder, updates_per_stage=100_000)
    process = start([*launch, script, *options])
    assert wait_for(lambda: (folder / "metrics.jsonl").exists(), process)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)  # the pipe ends only when the child has ended, too
    assert list((folder / "checkpoints").glob("steps-*"))


def test_a_teacher_goes_on_too(tmp_path):
    def words(folder):
        options = {"dataset_name": "digits", "output_dir": folder, "max_train_steps": 60, "train_batch_size": 16}
        options |= {"report_to": "none", "logging_steps": 4, "checkpointing_steps": 5, "lr_warmup_steps": 5}
        return command("train-teacher", *(f"--{k}={v}" for k, v in options.items()))

    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert run(words(whole))[0] == 0
    process = start(words(folder))
    assert wait_for(lambda: (folder / "checkpoints" / "teacher-00000010").exists(), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    status, output = run(words(folder))
    assert status == 0 and "going on from checkpoint teacher-" in output
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert logged(folder) == logged(whole)
