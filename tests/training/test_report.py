"""The figures that a chain measures while it goes on."""

import json
from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from helpers.evaluations import distances, results
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.data import load_digits
from diffusers_progdistill.pipelines.export import attach_metadata
from diffusers_progdistill.training import report
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.report import Report


@pytest.fixture
def chain(tmp_path, monkeypatch):
    """A function that measures a chain's teacher and a student of four steps; returns the report."""
    monkeypatch.setattr(report, "REFERENCE_STEPS", 16)
    student = attach_metadata(ProgressiveDistillationScheduler(), num_inference_steps=4)
    pipelines = [
        ProgressiveDistillationPipeline(tiny_unet(), s) for s in (ProgressiveDistillationScheduler(), student)
    ]
    content = {"about": {"model": {}}, "stages": []}

    def measure(**options):
        config = DistillationConfig(start_steps=8, end_steps=4, cache_dir=str(tmp_path / "cache"), **options)
        teacher = SimpleNamespace(model=SimpleNamespace(pipeline=pipelines[0]), guidance_scale=1.0)
        record = SimpleNamespace(folder=tmp_path, content=content)
        found = Report(config, record, load_digits(), teacher, Accelerator(cpu=True))
        found.add_student(SimpleNamespace(name="steps-4", num_steps=4), pipelines[1])
        return found

    return measure


def test_what_is_there_is_not_measured_again(chain, tmp_path, monkeypatch, capsys):
    chain(eval_images=8)
    before = (tmp_path / "evaluation.json").read_bytes()
    assert distances(tmp_path).keys() == {("teacher", 16), ("teacher", 4), ("steps-4", 4)}
    chain(eval_images=8)
    assert (tmp_path / "evaluation.json").read_bytes() == before
    # Figures of another number of images are no neighbours of these in what is printed.
    chain(eval_images=9).finish()
    assert [row["num_images"] for row in results(tmp_path)] == [8, 8, 8, 9, 9, 9]
    table = capsys.readouterr().out
    assert "9 images" in table and " 8 images" not in table and table.count("steps-4") == 1


def test_a_chain_and_evaluate_keep_the_same_figures(teacher_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "REFERENCE_STEPS", 16)
    folder = tmp_path / "run"
    words = f"--pretrained_teacher_model {teacher_folder} --output_dir {folder} --dataset_name digits"
    words += f" --cache_dir {tmp_path}"
    options = "--start_steps 8 --end_steps 4 --updates_per_stage 2 --train_batch_size 16 --report_to none"
    assert main(["distill", *words.split(), *options.split(), "--eval_images", "20"]) == 0
    before = results(folder)
    options = f"--num_images 20 --steps 4,16 --reference_steps 4 --cache_dir {tmp_path}"
    assert main(["evaluate", str(folder), *options.split()]) == 0
    after = results(folder)
    assert len(after) == len(before) == 3 and all("psnr_to_reference" in row for row in after)
    for row in after:
        row.pop("psnr_to_reference"), row.pop("reference")
    assert sorted(map(json.dumps, after)) == sorted(map(json.dumps, before))


def test_a_guided_teacher_that_does_not_name_its_null_class(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "REFERENCE_STEPS", 4)
    save_pipeline(tiny_unet(num_class_embeds=11), ProgressiveDistillationScheduler(), tmp_path / "teacher")
    folder = tmp_path / "run"
    words = f"--pretrained_teacher_model {tmp_path / 'teacher'} --output_dir {folder} --dataset_name digits"
    words += " --class_column label --guidance_scale 2 --conversion_updates 2 --updates_per_stage 2 --start_steps 4"
    words += f" --end_steps 2 --train_batch_size 16 --report_to none --eval_images 8 --cache_dir {tmp_path}"
    assert main(["distill", *words.split()]) == 0
    assert distances(folder).keys() == {("teacher", 4), ("converted", 4), ("steps-2", 2), ("teacher", 2)}
    before = results(folder)
    options = f"--num_images 8 --steps 4,2 --reference_steps 2 --cache_dir {tmp_path}"
    assert main(["evaluate", str(folder), *options.split()]) == 0
    after = results(folder)
    weights = {row["model"]: row["weights"] for row in before}
    assert {row["model"]: row["weights"] for row in after} == weights
