"""The figures that a chain keeps while it goes on."""

from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler
from diffusers_progdistill.data import load_digits
from diffusers_progdistill.training import report
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.report import Report


CASES = [(8, "classifier", True), (8, "other", False), (9, "classifier", False)]


@pytest.mark.parametrize("images, extractor, stays", CASES)
def test_figures_of_other_features_or_counts_are_no_neighbours(images, extractor, stays, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "REFERENCE_STEPS", 16)
    kept = {"num_images": images, "feature_extractor": extractor, "students": {"4": 1.5}}
    kept["teacher"] = {"16": 0.5}
    config = DistillationConfig(eval_images=8, start_steps=8, end_steps=4, cache_dir=str(tmp_path))
    pipeline = ProgressiveDistillationPipeline(tiny_unet(), ProgressiveDistillationScheduler())
    teacher, record = (
        SimpleNamespace(pipeline=pipeline, guidance_scale=1.0),
        SimpleNamespace(content={"evaluation": kept}),
    )
    found = Report(config, record, load_digits(), teacher, Accelerator(cpu=True)).evaluation
    assert found["students"] == ({"4": 1.5} if stays else {})
    assert (found["teacher"]["16"] == 0.5) == stays
    assert (found["num_images"], found["feature_extractor"]) == (8, "classifier")
