"""Run in a process of its own: which call loads which kind of student, from the Hub of HF_ENDPOINT. Prints JSON.

python hub_loading.py with|without
"""

import json
import sys
import warnings


warnings.simplefilter("ignore")
with_package = sys.argv[1] == "with"
if with_package:
    from diffusers_progdistill import ProgressiveDistillationPipeline
else:
    sys.modules["diffusers_progdistill"] = None  # importing it fails, as where it is not installed

import torch  # noqa: E402
from diffusers import DDIMPipeline, DiffusionPipeline, UNet2DModel  # noqa: E402
from diffusers.utils import logging  # noqa: E402


logging.disable_progress_bar()
logging.set_verbosity_error()
STEPS = {"me/plain": 4, "me/classes": 4, "me/three-steps": 3}


def pipeline_works(cls, repo, **options):
    pipeline = cls.from_pretrained(repo, **options)
    pipeline.set_progress_bar_config(disable=True)
    labels = {"class_labels": 1} if repo == "me/classes" and cls is not DDIMPipeline else {}
    generator = torch.Generator().manual_seed(0)
    steps = 8 if options else STEPS[repo]
    images = pipeline(generator=generator, num_inference_steps=steps, output_type="np", **labels).images
    return [type(pipeline).__name__, round(float(images.sum()), 3)]


def ways(repo):
    yield "DiffusionPipeline.from_pretrained(repo)", lambda: pipeline_works(DiffusionPipeline, repo)
    if repo == "me/plain":
        revision = {"revision": "steps-8"}
        name = 'DiffusionPipeline.from_pretrained(repo, revision="steps-8")'
        yield name, lambda: pipeline_works(DiffusionPipeline, repo, **revision)
    yield "DDIMPipeline.from_pretrained(repo)", lambda: pipeline_works(DDIMPipeline, repo)
    if with_package:
        cls = ProgressiveDistillationPipeline
        yield "ProgressiveDistillationPipeline.from_pretrained(repo)", lambda: pipeline_works(cls, repo)
        if repo == "me/plain":
            name = 'ProgressiveDistillationPipeline.from_pretrained(repo, revision="steps-8")'
            yield name, lambda: pipeline_works(cls, repo, **revision)
    name = 'UNet2DModel.from_pretrained(repo, subfolder="unet")'
    yield name, lambda: [type(UNet2DModel.from_pretrained(repo, subfolder="unet")).__name__]


table = {}
for repo in STEPS:
    for name, way in ways(repo):
        try:
            table[f"{repo} {name}"] = way()
        except Exception as error:
            table[f"{repo} {name}"] = f"{type(error).__name__}: {error}"[:200]
print(json.dumps(table))
