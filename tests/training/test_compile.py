"""`accelerate launch --dynamo_backend`: networks are compiled once a run, not once a stage, and resume as ever."""

import os
import subprocess
import sys

from processes import chain_options


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
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_DYNAMO_BACKEND": "AOT_EAGER"}
    made = subprocess.run(words, env=environment, text=True, capture_output=True, timeout=300)
    return made.returncode, (made.stdout.splitlines() or [""])[-1], made.stderr


def test_teacher_and_student_are_compiled_once(teacher_folder, tmp_path):
    status, line, errors = compiled(tmp_path / "one", teacher_folder, start_steps=4, end_steps=2, updates_per_stage=5)
    assert status == 0, errors
    assert line == "graphs 2 breaks 0"
    status, line, errors = compiled(tmp_path / "three", teacher_folder, start_steps=8, updates_per_stage=5)
    assert status == 0, errors
    assert line == "graphs 2 breaks 0"
