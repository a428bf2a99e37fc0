"""Invariant 5: any split of the same global batch over processes and accumulated parts trains the same model."""

import json

import pytest
import torch
from helpers.evaluations import distances
from helpers.processes import chain_options, run, torchrun
from safetensors.torch import load_file

from diffusers_progdistill.commands.main import main


@pytest.mark.parametrize("evaluated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_same_trajectory(teacher_folder, tmp_path, evaluated):
    def here(*words):
        assert main([*words]) == 0

    def twice(*words):
        status, output = run(torchrun(*words))
        assert status == 0, output

    def train(name, launch, batch, parts, **more):
        options = {"train_batch_size": batch, "gradient_accumulation_steps": parts, "updates_per_stage": 6}
        options |= {"end_steps": 2, "random_flip": True, "use_ema": False, **more}
        folder = tmp_path / name
        launch("distill", *chain_options(teacher_folder, folder, **options))
        tensors = load_file(folder / "steps-2" / "unet" / "diffusion_pytorch_model.safetensors")
        return torch.cat([v.flatten() for v in tensors.values()]).double()

    measured = {"eval_images": 40, "eval_batch_size": 16} if evaluated else {}
    one = train("one", here, 64, 1, **measured)
    for other in (train("two", twice, 32, 1, **measured), train("accumulated", here, 32, 2)):
        assert (one - other).norm() / one.norm() <= 2e-5
    if not evaluated:
        return
    # The evaluation is shared by the processes, and measures the same images.
    figures = [distances(tmp_path / name) for name in ("one", "two")]
    assert figures[0].keys() == figures[1].keys() and len(figures[0]) == 3
    assert all(figures[1][k] == pytest.approx(v, rel=1e-3) for k, v in figures[0].items()), figures


@pytest.mark.slow
def test_two_processes_make_two_runs_in_turn(tmp_path):
    """The demo trains a teacher and then distils it."""
    status, output = run(torchrun("demo", "--output_dir", tmp_path / "demo", "--scale", "0.002"))
    assert status == 0, output
    assert json.loads((tmp_path / "demo" / "chain.json").read_text())["finished"]
