"""What an evaluation makes and keeps where others measure the same, or into the same file."""

import json
import shutil

import pytest
from helpers.processes import command, start

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.evaluation import figures as figures_module


def results(path):
    return json.loads((path / "evaluation.json").read_text())["results"]


def test_a_reference_that_is_measured_too_is_made_once(teacher_folder, tmp_path, monkeypatch):
    made, sample_chunk = [], figures_module.sample_chunk
    monkeypatch.setattr(figures_module, "sample_chunk", lambda *a: made.append(a[1].num_steps) or sample_chunk(*a))
    same = tmp_path / "same"
    shutil.copytree(teacher_folder, same)
    asked = ["--dataset_name", "digits", "--num_images", "20", "--steps", "2,4", "--reference_steps", "4"]
    asked += ["--pretrained_teacher_model", teacher_folder, "--output_dir", tmp_path / "out"]
    assert main(["evaluate", *map(str, [same, *asked]), "--cache_dir", str(tmp_path)]) == 0
    assert sorted(made) == [2, 4]


@pytest.mark.slow
def test_two_that_measure_into_one_file_keep_each_others_figures(teacher_folder, tmp_path):
    options = ["--dataset_name", "digits", "--num_images", "20", "--output_dir", str(tmp_path / "out")]
    words = ["evaluate", str(teacher_folder), *options, "--cache_dir", str(tmp_path)]
    # So many that each is at work while the other is.
    shares = ["1,2,3,4,5,6,7,8", "9,10,11,12,13,14,15,16"]
    running = [start(command(*words, "--steps", share)) for share in shares]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert sorted(row["num_inference_steps"] for row in results(tmp_path / "out")) == list(range(1, 17))
    assert main([*words, "--steps", "1"]) == 0 and len(results(tmp_path / "out")) == 16
