"""Run in a process of its own, in which this package cannot be imported: stock diffusers samples pipelines of classes.

python stock_calls.py OUTPUT FOLDER:STEPS ...; writes the images, and prints JSON of everything else.
"""

import json
import logging
import sys
import warnings


if __name__ == "__main__":
    sys.modules["diffusers_progdistill"] = None  # importing it fails, as where it is not installed

import torch  # noqa: E402
from diffusers import DiffusionPipeline  # noqa: E402
from diffusers.utils import logging as diffusers_logging  # noqa: E402


LABELS = [3, 1, 4, 1]


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def load(folder):
    """The pipeline, and all warnings that loading it gives."""
    handler = Lines()
    diffusers_logging.add_handler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = DiffusionPipeline.from_pretrained(folder)
    diffusers_logging.remove_handler(handler)
    return pipeline, handler.lines + [str(warning.message) for warning in caught]


def sample(pipeline, steps):
    """Images of the labels, and the rows of every call of the network."""
    rows, network = [], pipeline.transformer
    network.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    generator = torch.Generator().manual_seed(0)
    call = {"generator": generator, "num_inference_steps": steps, "guidance_scale": 1.0, "output_type": "np"}
    return torch.as_tensor(pipeline(LABELS, **call).images), rows


if __name__ == "__main__":
    diffusers_logging.disable_progress_bar()
    told, images = [], []
    for word in sys.argv[2:]:
        folder, _, steps = word.rpartition(":")
        pipeline, said = load(folder)
        pipeline.set_progress_bar_config(disable=True)
        made, rows = sample(pipeline, int(steps))
        images.append(made)
        names = [type(pipeline).__name__, type(pipeline.scheduler).__name__]
        told.append({"classes": names, "warnings": said, "rows": rows, "labels": pipeline.labels})
    torch.save(images, sys.argv[1])
    print(json.dumps(told))
