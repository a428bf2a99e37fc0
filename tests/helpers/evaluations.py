"""`progdistill evaluate` in this process, and what its file says."""

import json

import torch
from safetensors.torch import load_file
from transformers import Dinov2Config, Dinov2Model

from diffusers_progdistill.commands.main import main


FIGURES = ("frechet_distance", "kernel_distance", "precision", "recall", "psnr_to_reference")


def evaluate(*words, cache):
    return main(["evaluate", *map(str, words), "--cache_dir", str(cache)])


def results(path):
    return json.loads((path / "evaluation.json").read_text())["results"]


def distances(path):
    """Frechet distances of one seed, by model and steps."""
    return {(row["model"], row["num_inference_steps"]): row["frechet_distance"] for row in results(path)}


def figures(rows):
    names = ("model", "sampler", "num_inference_steps", "seed")
    return {tuple(row[k] for k in names): [row[k] for k in FIGURES] for row in rows}


def measure_images(metrics, images):
    """All figures of `uint8` images."""
    generated = metrics.collect()
    generated.add(images)
    return metrics.measure(generated)


def is_images(path):
    return "images" in load_file(path)


VISION_SETTINGS = {
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "crop_size": {"height": 28, "width": 28},
}


def tiny_extractor(folder, seed):
    """A vision model of transformers with random weights."""
    torch.manual_seed(seed)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(VISION_SETTINGS))
    return folder
