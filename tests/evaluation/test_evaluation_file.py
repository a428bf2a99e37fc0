"""Which figures stand beside each other in one `evaluation.json`, and which agreement with a teacher is measured."""

import json
import shutil

import torch
from helpers.evaluations import evaluate, results, tiny_extractor
from helpers.networks import tiny_unet
from PIL import Image

from diffusers_progdistill import ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.evaluation.store import summarize_rows
from diffusers_progdistill.identity import teacher_key
from diffusers_progdistill.pipelines.export import attach_metadata
from diffusers_progdistill.record import TEACHER_KEY


def test_a_student_is_compared_with_a_named_teacher(teacher_folder, tmp_path):
    student = attach_metadata(ProgressiveDistillationScheduler(), num_inference_steps=4)
    save_pipeline(tiny_unet(), student, tmp_path / "student")
    options = ["--dataset_name", "digits", "--num_images", "30", "--pretrained_teacher_model", str(teacher_folder)]
    options += ["--reference_steps", "4", "--output_dir", str(tmp_path / "out")]
    assert evaluate(tmp_path / "student", *options, cache=tmp_path) == 0
    (row,) = results(tmp_path / "out")
    # The same weights and steps: the same images.
    assert row["num_inference_steps"] == 4 and row["psnr_to_reference"] > 60


def test_figures_of_other_weights_are_replaced(teacher_folder, tmp_path):
    save_pipeline(tiny_unet(), ProgressiveDistillationScheduler(), tmp_path / "model")
    options = ["--dataset_name", "digits", "--num_images", "30", "--steps", "2", "--output_dir", str(tmp_path / "out")]
    assert evaluate(tmp_path / "model", *options, cache=tmp_path) == 0
    (first,) = results(tmp_path / "out")
    unet = tiny_unet()
    torch.nn.init.zeros_(unet.conv_out.weight)
    save_pipeline(unet, ProgressiveDistillationScheduler(), tmp_path / "model")
    assert evaluate(tmp_path / "model", *options, cache=tmp_path) == 0
    (second,) = results(tmp_path / "out")
    assert second["weights"] != first["weights"] and second["frechet_distance"] != first["frechet_distance"]
    # The same weights, taken for something else.
    save_pipeline(unet, ProgressiveDistillationScheduler(prediction_type="sample"), tmp_path / "model")
    assert evaluate(tmp_path / "model", *options, cache=tmp_path) == 0
    (third,) = results(tmp_path / "out")
    assert third["frechet_distance"] != second["frechet_distance"]
    # A further seed stands beside it.
    assert evaluate(tmp_path / "model", *options, "--seeds", "0,1", cache=tmp_path) == 0
    assert [row["seed"] for row in results(tmp_path / "out")] == [0, 1]


def test_figures_of_other_images_or_features_are_refused(teacher_folder, tmp_path, capsys):
    options = ["--dataset_name", "digits", "--num_images", "30", "--steps", "2", "--output_dir", str(tmp_path / "out")]
    assert evaluate(teacher_folder, *options, cache=tmp_path) == 0
    before = (tmp_path / "out" / "evaluation.json").read_bytes()
    images = tmp_path / "images"
    images.mkdir()
    for k in range(10):
        Image.new("L", (8, 8), 25 * k).save(images / f"{k}.png")
    extractor = tiny_extractor(tmp_path / "one" / "vision", seed=0)
    other = ["--train_data_dir", str(images), "--feature_extractor", str(extractor), *options[2:]]
    assert evaluate(teacher_folder, *other, cache=tmp_path) == 2
    assert "holds figures of other real images: give another --output_dir" in capsys.readouterr().err
    # Features of one name and other weights.
    assert evaluate(teacher_folder, *options, "--feature_extractor", extractor, cache=tmp_path) == 0
    between = (tmp_path / "out" / "evaluation.json").read_bytes()
    tiny_extractor(extractor, seed=1)
    assert evaluate(teacher_folder, *options, "--feature_extractor", extractor, "--steps", "4", cache=tmp_path) == 2
    assert "holds FD (vision) of other weights of that name" in capsys.readouterr().err
    twin = tiny_extractor(tmp_path / "two" / "vision", seed=2)
    assert evaluate(teacher_folder, *options, "--feature_extractor", f"{extractor},{twin}", cache=tmp_path) == 2
    assert "two are called FD (vision)" in capsys.readouterr().err
    assert before != between == (tmp_path / "out" / "evaluation.json").read_bytes()


def test_agreement_with_another_reference_replaces_that_with_the_first(teacher_folder, tmp_path):
    student = attach_metadata(ProgressiveDistillationScheduler(), num_inference_steps=4)
    save_pipeline(tiny_unet(), student, tmp_path / "student")
    options = ["--dataset_name", "digits", "--num_images", "30", "--pretrained_teacher_model", str(teacher_folder)]
    options += ["--output_dir", str(tmp_path / "out")]
    for steps in ("4", "8"):
        assert evaluate(tmp_path / "student", *options, "--reference_steps", steps, cache=tmp_path) == 0
    (row,) = results(tmp_path / "out")
    assert row["psnr_to_reference"] < 60
    # One seed with each has no median.
    assert evaluate(tmp_path / "student", *options, "--reference_steps", "4", "--seeds", "1", cache=tmp_path) == 0
    rows = results(tmp_path / "out")
    assert len(rows) == 2 and "psnr_to_reference" not in summarize_rows(rows)[0]


def test_runs_of_several_teachers_need_a_named_one(run_folder, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    unet = tiny_unet()
    torch.nn.init.zeros_(unet.conv_out.weight)
    scheduler = ProgressiveDistillationScheduler()
    save_pipeline(unet, scheduler, other / "teacher")
    record = json.loads((other / "chain.json").read_text())
    record["settings"] |= {
        "pretrained_teacher_model": str(other / "teacher"),
        TEACHER_KEY: teacher_key(unet, scheduler),
    }
    (other / "chain.json").write_text(json.dumps(record))
    asked = ["--steps", "2", "--reference_steps", "2", "--num_images", "20", "--output_dir", tmp_path / "out"]
    assert evaluate(run_folder, other, *asked, cache=tmp_path) == 0
    assert "no agreement with a teacher is measured: there are several" in capsys.readouterr().out
    assert not any("psnr_to_reference" in row for row in results(tmp_path / "out"))
