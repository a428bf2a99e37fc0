"""Real processes that train, to be killed, stopped and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


def chain_options(teacher, folder, **more):
    """A chain of two stages with checkpoints every few updates."""
    options = {"pretrained_teacher_model": teacher, "output_dir": folder, "dataset_name": "digits"}
    options |= {"start_steps": 4, "end_steps": 1, "updates_per_stage": 30, "train_batch_size": 16, "use_ema": True}
    options |= {"learning_rate": 1e-3, "report_to": "none", "logging_steps": 4, "checkpointing_steps": 7, **more}
    return [f"--{k}={v}" for k, v in options.items()]


def command(*argv):
    return [sys.executable, "-m", "diffusers_progdistill.commands.main", *argv]


def torchrun(*argv, processes=2):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*launch, "-m", "diffusers_progdistill.commands.main", *argv]


def start(words, **environment):
    """Start a command in a group of its own, its output in a pipe."""
    environment = {**os.environ, **ENVIRONMENT, **environment}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
    return subprocess.Popen(words, env=environment, text=True, **options)


def run(words, **environment):
    """Run a command to its end: its exit status and its output."""
    process = start(words, **environment)
    try:
        output = process.communicate(timeout=150)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, output


def wait_for(condition, process, seconds=120):
    """Wait until something holds; whether it came before the process's end."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
    return False


def weights(folder: Path) -> dict[str, bytes]:
    """The bytes of every student's weights."""
    return {p.parts[-3]: p.read_bytes() for p in sorted(folder.glob("steps-*/unet/*.safetensors"))}


def logged(folder: Path) -> list[tuple]:
    """What metrics.jsonl says, without the speed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(x["stage"], x["update"], x["loss"]) for x in lines]
