"""`accelerate launch --dynamo_backend`: networks are compiled once a run, not once a stage, and resume as ever."""

import json
import os
import signal

import pytest
from helpers.processes import chain_options, command, run, start, wait_for, weights
from safetensors.torch import load
from torch.testing import assert_close

from diffusers_progdistill.commands.main import main


COMPILED = {"ACCELERATE_DYNAMO_BACKEND": "AOT_EAGER"}
# When something was compiled: the stage, and the updates it had made. Between stages students are sampled, which is
# another graph; the stage then has none left.
TOLD = """
import json, sys
from torch._dynamo.callback import callback_handler
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.training.monitor import Monitor

on_update, start, now, compiled = Monitor.on_update, Monitor.start, ["", 0, 0], []

def note_start(self, stage, *more):
    now[:] = [stage.name, 0, stage.updates]
    return start(self, stage, *more)

def note_update(self):
    on_update(self)
    now[1] += 1

Monitor.on_update, Monitor.start = note_update, note_start
callback_handler.register_start_callback(lambda *_: compiled.append([*now]))
status = main(sys.argv[1:])
print(json.dumps(compiled))
sys.exit(status)
"""


@pytest.mark.parametrize("backend", ["EAGER", pytest.param("AOT_EAGER", marks=pytest.mark.slow)])
def test_teacher_and_student_are_compiled_before_the_first_update(teacher_folder, tmp_path, backend):
    options = {"start_steps": 8, "end_steps": 2, "updates_per_stage": 2, "checkpointing_steps": 100}
    words = ["distill", *chain_options(teacher_folder, tmp_path / "compiled", **options)]
    status, output = run(["-c", TOLD, *words], ACCELERATE_DYNAMO_BACKEND=backend)
    assert status == 0, output
    told = json.loads(output.splitlines()[-1])
    assert any(made == 0 for _, made, _ in told), "nothing was compiled"
    assert not [entry for entry in told if 0 < entry[1] < entry[2]], told
    assert main(["distill", *chain_options(teacher_folder, tmp_path / "eager", **options)]) == 0
    compiled, eager = (weights(tmp_path / name) for name in ("compiled", "eager"))
    assert compiled.keys() == eager.keys() == {"steps-4", "steps-2"}
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
