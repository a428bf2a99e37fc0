"""`accelerate launch --dynamo_backend`: networks are compiled once a run, not once a stage, and resume as ever."""

import os
import signal
import subprocess
import sys

import pytest
from helpers.processes import chain_options, command, run, start, wait_for, weights


COMPILED = {"ACCELERATE_DYNAMO_BACKEND": "AOT_EAGER"}
COUNT = """
import sys
from torch._dynamo.utils import counters
from diffusers_progdistill.commands.main import main
status = main(sys.argv[1:])
print("graphs", counters["stats"]["unique_graphs"], "breaks", sum(counters["graph_break"].values()))
sys.exit(status)
"""


def compiled(folder, teacher, **options):
    """Run a chain of compiled networks; its status and the last line."""
    words = [sys.executable, "-c", COUNT, "distill", *chain_options(teacher, folder, **options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **COMPILED}
    made = subprocess.run(words, env=environment, text=True, capture_output=True, timeout=300)
    return made.returncode, (made.stdout.splitlines() or [""])[-1], made.stderr


def test_teacher_and_student_are_compiled_once(teacher_folder, tmp_path):
    status, line, errors = compiled(tmp_path / "one", teacher_folder, start_steps=4, end_steps=2, updates_per_stage=5)
    assert status == 0, errors
    assert line == "graphs 2 breaks 0"
    status, line, errors = compiled(tmp_path / "three", teacher_folder, start_steps=8, updates_per_stage=5)
    assert status == 0, errors
    assert line == "graphs 2 breaks 0"


@pytest.mark.slow
def test_a_compiled_run_that_is_stopped_goes_on(teacher_folder, tmp_path):
    words = {name: command("distill", *chain_options(teacher_folder, tmp_path / name)) for name in ("whole", "cut")}
    status, output = run(words["whole"], **COMPILED)
    assert status == 0, output
    process = start(words["cut"], **COMPILED)
    assert wait_for(lambda: list((tmp_path / "cut").glob("checkpoints/steps-1-*")), process)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    status, output = run(words["cut"], **COMPILED)
    assert status == 0, output
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
