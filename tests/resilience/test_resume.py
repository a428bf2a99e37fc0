"""Invariant 4: a run that was stopped at any moment and started again is the run that was never stopped."""

import contextlib
import os
import random
import signal
import subprocess
import time

import pytest
from helpers.networks import small_network, stock_teacher
from helpers.processes import chain_options, command, logged, run, start, stopped_at, torchrun, wait_for, weights

from diffusers_progdistill.commands.main import main


def assert_same(folder, whole):
    assert weights(folder) == weights(whole)
    assert logged(folder) == logged(whole)


def stop_often(words, folder, signum, moments, chance, **environment):
    """Stop the command this many times after random numbers of seconds, then let it end. Returns the statuses."""
    statuses = []
    for _ in range(moments):
        process = start(words, **environment)
        if wait_for(lambda: (folder / "chain.json").exists(), process):
            try:
                process.wait(chance.uniform(0, 4))
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signum)
        process.communicate()
        statuses.append(process.returncode)
    status, output = run(words, **environment)
    assert status == 0, output
    return statuses


def test_killed(teacher_folder, whole_chain, tmp_path):
    """In the first stage, then in the second."""
    words = ["distill", *chain_options(teacher_folder, tmp_path / "run")]
    for update in (5, 10):
        assert run(stopped_at(update, signal.SIGKILL, *words))[0] == -signal.SIGKILL
    assert (tmp_path / "run" / "steps-2").exists() and not (tmp_path / "run" / "steps-1").exists()
    assert main(words) == 0
    assert_same(tmp_path / "run", whole_chain)


def test_killed_while_converting(tmp_path, capsys):
    stock = stock_teacher(tmp_path / "stock")
    options = {"conversion_updates": 8, "end_steps": 2, "updates_per_stage": 2}
    assert main(["distill", *chain_options(stock, tmp_path / "whole", **options)]) == 0
    words = ["distill", *chain_options(stock, tmp_path / "run", **options)]
    assert run(stopped_at(5, signal.SIGKILL, *words))[0] == -signal.SIGKILL
    capsys.readouterr()
    assert main(words) == 0
    assert "going on from checkpoint teacher-" in capsys.readouterr().out
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("update", [1, 10, 13])
def test_terminated(teacher_folder, whole_chain, tmp_path, update):
    """At the first update, with the last of a stage, and within the last stage."""
    words = ["distill", *chain_options(teacher_folder, tmp_path / "run")]
    assert run(stopped_at(update, signal.SIGTERM, *words))[0] == 143
    assert main(words) == 0
    assert_same(tmp_path / "run", whole_chain)


@pytest.mark.slow
@pytest.mark.parametrize("signum, moments", [(signal.SIGKILL, 14), (signal.SIGTERM, 8)])
def test_stopped_at_many_moments(hub, teacher_folder, whole_chain, tmp_path, signum, moments):
    """During updates, checkpoints, stage ends, evaluation and pushes: the same weights, each push once."""
    chance, environment = random.Random(signum), hub.environment(tmp_path / "home")
    for k in range(0, moments, 4):
        folder, name = tmp_path / f"run-{k}", f"me/run-{k}"
        options = {"eval_images": 60, "eval_batch_size": 20, "push_to_hub": True, "hub_model_id": name}
        words = command("distill", *chain_options(teacher_folder, folder, **options))
        statuses = stop_often(words, folder, signum, min(4, moments - k), chance, **environment)
        assert set(statuses) <= ({-signal.SIGKILL, 0} if signum == signal.SIGKILL else {143, -signal.SIGTERM, 0})
        assert_same(folder, whole_chain)
        repo = hub.repo(name)
        assert [c.title for c in repo.commits[1:]] == ["Student of steps 2", "Student of steps 1"]
        assert repo.tags == {"steps-2": repo.commits[1].oid, "steps-1": repo.commits[2].oid}


@pytest.mark.parametrize("signum, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_its_own_status(
    teacher_folder, whole_chain, tmp_path, capsys, signum, status
):
    folder = tmp_path / "run"
    words = ["distill", *chain_options(teacher_folder, folder, checkpointing_steps=1000)]
    found, output = run(stopped_at(5, signum, *words))
    assert found == status and "the same command goes on" in output
    assert not (folder / "steps-2").exists()
    capsys.readouterr()
    assert main(words) == 0
    assert "going on from checkpoint steps-2-00000005" in capsys.readouterr().out
    assert_same(folder, whole_chain)


@pytest.mark.parametrize("moments", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_two_processes_stop_together(teacher_folder, tmp_path, moments):
    """torchrun hands SIGTERM on; every process ends after the same update, and the run goes on from there."""
    options = {"train_batch_size": 8, "updates_per_stage": 5, "end_steps": 2}
    whole, folder, chance = tmp_path / "whole", tmp_path / "run", random.Random(0)
    status, output = run(torchrun("distill", *chain_options(teacher_folder, whole, **options)))
    assert status == 0, output
    words = torchrun("distill", *chain_options(teacher_folder, folder, **options))
    for _ in range(moments):
        process = start(words)
        if wait_for(lambda: (folder / "metrics.jsonl").exists(), process):
            time.sleep(chance.uniform(0, 1) if moments > 1 else 0)
            # A run that is all but done may end in the meantime.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
        assert list((folder / "checkpoints").glob("steps-*")) or (folder / "steps-2").exists(), output
    status, output = run(words)
    assert status == 0, output
    assert weights(folder) == weights(whole) and logged(folder) == logged(whole)


def test_a_signal_while_the_last_pushes_are_waited_for(hub, teacher_folder, tmp_path):
    """All is trained, the Hub does not answer: the status is the signal's, and what is missing is named."""
    hub.add_repo("me/m")
    more = {"push_to_hub": True, "hub_model_id": "me/m", "updates_per_stage": 1}
    words = command("distill", *chain_options(teacher_folder, tmp_path / "run", **more))
    hub.fail("POST", "/commit/", 503, times=1000)
    process = start(words, **hub.environment(tmp_path / "home"))
    record = tmp_path / "run" / "chain.json"
    assert wait_for(lambda: record.exists() and '"finished": true' in record.read_text(), process)
    os.kill(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 143 and "not on the Hub: steps-2, steps-1" in output, output
    assert "hf_write" not in output


def test_two_runs_in_one_folder_are_refused(teacher_folder, tmp_path, capsys):
    words = ["distill", *chain_options(teacher_folder, tmp_path / "run", updates_per_stage=100_000)]
    process = start(command(*words))
    assert wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    assert main(words) == 2
    assert "in use by another process" in capsys.readouterr().err
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_teacher_goes_on_too(tmp_path, capsys):
    def words(folder):
        options = {"dataset_name": "digits", "output_dir": folder, "max_train_steps": 10, "train_batch_size": 16}
        options |= {"report_to": "none", "logging_steps": 2, "checkpointing_steps": 3, "lr_warmup_steps": 5}
        options["model_config_name_or_path"] = small_network(tmp_path)
        return ["train-teacher", *(f"--{k}={v}" for k, v in options.items())]

    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert main(words(whole)) == 0
    assert run(stopped_at(8, signal.SIGKILL, *words(folder)))[0] == -signal.SIGKILL
    capsys.readouterr()
    assert main(words(folder)) == 0
    assert "going on from checkpoint teacher-" in capsys.readouterr().out
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert logged(folder) == logged(whole)
