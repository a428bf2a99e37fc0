"""Invariant 7: stock diffusers, without this package, gives our pipeline's images, and says nothing about it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.pipelines.export import attach_metadata


def images(pipeline, **options):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(4, generator=torch.Generator().manual_seed(0), output_type="np", **options).images


# With x-prediction stock's float32 `1 - alpha^2` loses digits near data, so many-step students differ more there.
@pytest.mark.parametrize(
    "num_steps, prediction_type",
    [(n, "v_prediction") for n in (1, 2, 4, 8, 16, 32, 128)] + [(n, "sample") for n in (1, 2, 4, 8)],
)
def test_same_images(num_steps, prediction_type, tmp_path, caplog):
    scheduler = attach_metadata(
        ProgressiveDistillationScheduler(prediction_type=prediction_type), num_inference_steps=num_steps
    )
    save_pipeline(tiny_unet(), scheduler, tmp_path)
    ours = images(ProgressiveDistillationPipeline.from_pretrained(tmp_path))
    stock = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(stock).__name__ == "DDIMPipeline"
    for use_clipped in (None, False, True):
        difference = np.abs(images(stock, num_inference_steps=num_steps, use_clipped_model_output=use_clipped) - ours)
        assert difference.max() <= 1e-4 and difference.mean() <= 1e-6
    assert not caplog.records


STOCK_SCRIPT = """
import sys, warnings
sys.modules["diffusers_progdistill"] = None  # importing it fails, as where it is not installed
warnings.simplefilter("error")
import numpy as np, torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
images = pipe(4, generator=torch.Generator().manual_seed(0), num_inference_steps=4, output_type="np").images
np.save(sys.argv[2], images)
"""


def test_without_this_package_and_without_a_warning(tmp_path):
    scheduler = attach_metadata(ProgressiveDistillationScheduler(), num_inference_steps=4)
    save_pipeline(tiny_unet(), scheduler, tmp_path / "steps-4")
    command = [sys.executable, "-c", STOCK_SCRIPT, tmp_path / "steps-4", tmp_path / "out.npy"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "warn" not in (run.stdout + run.stderr).lower() and "not expected" not in run.stderr
    ours = images(ProgressiveDistillationPipeline.from_pretrained(tmp_path / "steps-4"))
    difference = np.abs(np.load(tmp_path / "out.npy") - ours)
    assert difference.max() <= 1e-4 and difference.mean() <= 1e-6
