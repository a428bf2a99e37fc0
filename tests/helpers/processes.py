"""Real processes that train, to be killed, stopped and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from .python_server import SERVER


ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


def chain_options(teacher, folder, **more):
    """A chain of two stages with checkpoints every few updates."""
    options = {"pretrained_teacher_model": teacher, "output_dir": folder, "dataset_name": "digits"}
    options |= {"start_steps": 4, "end_steps": 1, "updates_per_stage": 5, "train_batch_size": 16, "use_ema": True}
    options |= {"learning_rate": 1e-3, "report_to": "none", "logging_steps": 2, "checkpointing_steps": 3, **more}
    return [f"--{k}={v}" for k, v in options.items()]


def command(*argv):
    """`progdistill ...`"""
    return ["-m", "diffusers_progdistill.commands.main", *argv]


# Signals that come from outside come at a random update; this one comes at a chosen one, however busy the machine is.
STOPPING = """
import os, sys
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.training.monitor import Monitor

signum, left, on_update = int(sys.argv[1]), int(sys.argv[2]), Monitor.on_update

def stop(self):
    global left
    on_update(self)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signum)

Monitor.on_update = stop
sys.exit(main(sys.argv[3:]))
"""


def stopped_at(update, signum, *argv):
    """`progdistill ...` in a process that gets a signal after so many updates."""
    return ["-c", STOPPING, str(int(signum)), str(update), *argv]


def torchrun(*argv, processes=2):
    """`torchrun` of the command: its own agent, which forks the processes that it otherwise starts anew."""
    return ["-m", "helpers.torchrun", str(processes), *argv]


def start(words, **environment):
    """Start `python ...` in a group of its own, its output in a pipe. See [`python_server`] for what it saves."""
    return SERVER.start(words, {**os.environ, **ENVIRONMENT, **environment})


def start_anew(words, **environment):
    """The same with an interpreter of its own, where the start or the end of one is the point."""
    environment = {**os.environ, **ENVIRONMENT, **environment}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
    return subprocess.Popen([sys.executable, *words], env=environment, text=True, **options)


def run(words, start=start, **environment):
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
