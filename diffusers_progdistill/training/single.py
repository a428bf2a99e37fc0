"""A run of a single stage, from fresh to finished: a teacher, or a converted model."""

import contextlib
from pathlib import Path

from ..data.findings import REPLACED
from ..families import Family
from ..record import Record, only_process_in
from .launcher import describe_hardware
from .monitor import Monitor
from .run import Run, check_resume
from .signals import StopRequest
from .student import make_single
from .task import StageTask
from .trackers import finish_trackers, start_trackers


def run_single(run: Run, task: StageTask, family: Family) -> Path:
    """Train one model into `output_dir` itself, unless it is there already, finished with the same settings."""
    config, accelerator, folder = run.config, run.accelerator, Path(run.config.output_dir)
    settings = run.settings()
    check_resume(config, Record(folder, settings))
    with only_process_in(folder) if run.is_main else contextlib.nullcontext():
        record = Record(folder, settings)
        if record.finished:
            accelerator.print(f"the {task.stage.name} in {folder} is finished already")
            return folder
        accelerator.wait_for_everyone()
        with StopRequest() as stop:
            if run.is_main:
                record.update(hardware=describe_hardware(accelerator))
            start_trackers(accelerator, record.content["settings"])
            monitor = Monitor(accelerator, folder, task.stage.forward_passes)
            monitor.start(task.stage, 1, 1, run.global_batch)
            make_single(run, task, family, monitor, record, stop)
            run.data.findings.say(REPLACED)
        finish_trackers(accelerator)
        # What comes after may need what the main process wrote.
        accelerator.wait_for_everyone()
    return folder
