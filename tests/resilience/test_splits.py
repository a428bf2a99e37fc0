"""Invariant 5: any split of the same global batch over processes and accumulated parts trains the same model."""

import json

import pytest
import torch
from processes import chain_options, command, run, torchrun
from safetensors.torch import load_file


def evaluation(folder):
    """Every distance that a run measured."""
    content = json.loads((folder / "chain.json").read_text())["evaluation"]
    return {f"{kind} {steps}": v for kind in ("students", "teacher") for steps, v in content[kind].items()}


def test_the_same_trajectory(teacher_folder, tmp_path):
    def train(name, launch, batch, parts):
        options = {"train_batch_size": batch, "gradient_accumulation_steps": parts, "updates_per_stage": 50}
        options |= {"end_steps": 2, "random_flip": True, "use_ema": False, "eval_images": 40, "eval_batch_size": 16}
        folder = tmp_path / name
        status, output = run(launch("distill", *chain_options(teacher_folder, folder, **options)))
        assert status == 0, output
        tensors = load_file(folder / "steps-2" / "unet" / "diffusion_pytorch_model.safetensors")
        return torch.cat([v.flatten() for v in tensors.values()]).double()

    one = train("one", command, 64, 1)
    for name, launch, batch, parts in (("two", torchrun, 32, 1), ("accumulated", command, 32, 2)):
        other = train(name, launch, batch, parts)
        assert (one - other).norm() / one.norm() <= 2e-5, name
        # The evaluation is shared by the processes, and measures the same images.
        figures = [evaluation(tmp_path / n) for n in ("one", name)]
        assert figures[0].keys() == figures[1].keys() and len(figures[0]) == 3
        assert all(figures[1][k] == pytest.approx(v, rel=1e-3) for k, v in figures[0].items()), figures
