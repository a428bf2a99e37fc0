"""What `progdistill evaluate` refuses, in one line and before anything is measured."""

import pytest
from helpers.evaluations import evaluate
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler


def test_models_of_other_images_are_refused(teacher_folder, tmp_path, capsys):
    wide = ProgressiveDistillationPipeline(tiny_unet(16), ProgressiveDistillationScheduler())
    wide.save_pretrained(tmp_path / "wide")
    assert evaluate(teacher_folder, tmp_path / "wide", "--dataset_name", "digits", cache=tmp_path) == 2
    assert "makes images of 1x16x16" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        ("", "give what to measure first"),
        ("TEACHER", "give the real images by --dataset_name or --train_data_dir"),
        ("TEACHER --dataset_name digits --samplers plms", "--samplers plms is not one of progdistill, ddim"),
        ("TEACHER --dataset_name digits --steps 0", "--steps must be numbers of at least 1"),
        ("TEACHER --dataset_name digits --seeds a", "--seeds must be numbers"),
        ("TEACHER --dataset_name digits --num_images 1", "--num_images must be at least 4, not 1"),
        ("TEACHER --dataset_name digits --feature_extractor no/such", "--feature_extractor no/such cannot be loaded"),
        ("TEACHER --dataset_name digits --feature_extractor inception", "needs torch-fidelity"),
        ("TEACHER --dataset_name digits --guidance_scale 2", "has no null class; it must be 1"),
        ("TEACHER TEACHER --dataset_name digits", "would be measured twice"),
        ("./nowhere --dataset_name digits", "is not a folder"),
    ],
)
def test_refusals(words, message, teacher_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(teacher_folder) if word == "TEACHER" else word for word in words.split()]
    assert evaluate(*words, cache=tmp_path) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("progdistill")]
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "evaluation").exists()
