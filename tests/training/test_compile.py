"""`accelerate launch --dynamo_backend`: networks are compiled once a run, not once a stage, and resume as ever."""

import os
import signal

import pytest
from helpers.processes import chain_options, command, run, start, wait_for, weights
from safetensors.torch import load
from torch.testing import assert_close

from diffusers_progdistill.commands.main import main


COMPILED = {"ACCELERATE_DYNAMO_BACKEND": "AOT_EAGER"}
# Once a stage has made an update, whatever updates would compile once more is an error, in all later stages too.
ONCE = """
import sys, torch
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.training.monitor import Monitor

on_update, start, made, left = Monitor.on_update, Monitor.start, 0, 0

def start_as_ever(self, stage, *more):
    global left
    left = stage.updates
    torch.compiler.set_stance("fail_on_recompile" if made else "default")
    return start(self, stage, *more)

def no_more(self):
    global made, left
    on_update(self)
    made, left = made + 1, left - 1
    # Between stages students are sampled, which is another graph.
    torch.compiler.set_stance("fail_on_recompile" if left else "default")

Monitor.on_update, Monitor.start = no_more, start_as_ever
status = main(sys.argv[1:])
from torch._dynamo.utils import counters
print(made, "updates,", "compiled" if counters["stats"] else "not compiled")
sys.exit(status)
"""


def test_teacher_and_student_are_compiled_once(teacher_folder, tmp_path):
    options = {"start_steps": 8, "updates_per_stage": 2, "checkpointing_steps": 100}
    words = ["distill", *chain_options(teacher_folder, tmp_path / "compiled", **options)]
    status, output = run(["-c", ONCE, *words], **COMPILED)
    assert status == 0, output
    assert output.splitlines()[-1] == "10 updates, compiled"
    assert main(["distill", *chain_options(teacher_folder, tmp_path / "eager", **options)]) == 0
    compiled, eager = (weights(tmp_path / name) for name in ("compiled", "eager"))
    assert compiled.keys() == eager.keys() == {"steps-4", "steps-2", "steps-1"}
    for name in eager:
        assert_close(load(compiled[name]), load(eager[name]), atol=1e-5, rtol=1e-4)


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
