"""Chains of a few updates in this process, and what they leave."""

import json

import torch

from diffusers_progdistill import ProgressiveDistillationPipeline
from diffusers_progdistill.training.config import DistillationConfig


def chain(teacher, folder, **options):
    """The config of a chain from 8 steps to 1, three updates a stage, on the digits."""
    options = {"start_steps": 8, "end_steps": 1, "updates_per_stage": 3, "train_batch_size": 16, **options}
    return DistillationConfig(
        pretrained_teacher_model=str(teacher),
        output_dir=str(folder),
        dataset_name="digits",
        report_to="none",
        learning_rate=1e-3,
        **{"logging_steps": 2, **options},
    )


def weights(folder):
    """The weights of a stored pipeline."""
    return ProgressiveDistillationPipeline.from_pretrained(folder).unet.state_dict()


def same(a, b):
    """Whether all weights are bit for bit the same."""
    return all(torch.equal(a[k], b[k]) for k in a)


def read_record(folder):
    """What chain.json holds."""
    return json.loads((folder / "chain.json").read_text())


def read_metrics(folder):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
