"""A run that tests of evaluation share."""

import pytest

from diffusers_progdistill.commands.main import main


@pytest.fixture(scope="session")
def run_folder(teacher_folder, tmp_path_factory):
    """A chain with two students."""
    folder = tmp_path_factory.mktemp("run") / "run"
    options = "--dataset_name digits --start_steps 8 --end_steps 2 --updates_per_stage 2 --train_batch_size 16"
    arguments = ["--pretrained_teacher_model", str(teacher_folder), "--output_dir", str(folder), "--report_to", "none"]
    assert main(["distill", *options.split(), *arguments]) == 0
    return folder
