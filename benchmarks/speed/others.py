"""Start-up, checkpoints, data and evaluation."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from networks import make_images, make_network
from PIL import Image
from timing import interleaved, row
from updates import make_config

from diffusers_progdistill.data import BatchLayout, GlobalOrder, load_data, load_digits, make_loader
from diffusers_progdistill.data.decode import read_picture
from diffusers_progdistill.data.sizes import to_array
from diffusers_progdistill.evaluation.images import as_bytes
from diffusers_progdistill.evaluation.metrics import ImageMetrics
from diffusers_progdistill.evaluation.sampling import generate
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.schedulers import ProgressiveDistillationScheduler
from diffusers_progdistill.training.checkpointing import Checkpoints
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.optimizer import make_optimizer


def startup_rows(repeats: int) -> list[dict]:
    """Seconds of a fresh interpreter less an empty one's."""

    def command(*words):
        return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    sides = {
        "import torch": command("-c", "import torch"),
        "import diffusers_progdistill": command("-c", "import diffusers_progdistill"),
        "progdistill --help": command("-m", "diffusers_progdistill.commands.main", "--help"),
        "progdistill distill --help": command("-m", "diffusers_progdistill.commands.main", "distill", "--help"),
        "empty": command("-c", ""),
    }
    times = interleaved(sides, repeats, warm_up=1)
    empty = times.pop("empty")
    return row(
        "start-up, less an empty interpreter",
        {name: [max(a - b, 1e-6) for a, b in zip(seconds, empty)] for name, seconds in times.items()},
        "import torch",
        "s",
    )


def checkpoint_rows(repeats: int, network: str = "1 M, 28x28") -> list[dict]:
    """A checkpoint beside writing its bytes with one call."""
    model, accelerator = make_network(network), Accelerator(cpu=True)
    optimizer = make_optimizer(make_config(8), model)
    sum(p.sum() for p in model.parameters()).backward()
    model, optimizer = accelerator.prepare(model, optimizer)
    optimizer.step()
    ema = EMAModel(model.parameters(), decay=0.9, foreach=True)
    with TemporaryDirectory() as folder:
        checkpoints, count = Checkpoints(accelerator, Path(folder), "speed", 2, "latest"), iter(range(10**6))
        checkpoints.attach({"model": model}, {"model": optimizer}, {"model": ema})
        checkpoints.save(next(count), {})
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        content = os.urandom(size)

        def write():
            with open(Path(folder, "bytes"), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

        sides = {"write and sync the bytes": write, "checkpoint": lambda: checkpoints.save(next(count), {})}
        times = interleaved(sides, repeats)
    return row(f"checkpoint of {size / 1e6:.1f} MB", times, "write and sync the bytes")


def data_rows(repeats: int, network: str = "1 M, 28x28", batch_size: int = 64) -> list[dict]:
    """Taking a batch beside a forward pass of it."""
    data, unet = make_images(network), make_network(network).eval()
    batches = iter(make_loader(data, GlobalOrder(len(data), BatchLayout(batch_size), 0, 1, 10**6), 0))
    images = torch.randn(batch_size, 1, 28, 28)
    with torch.no_grad():
        sides = {"forward pass": lambda: unet(images, 1), "batch of images": lambda: next(batches)}
        times = interleaved(sides, repeats)
    return row(f"data, batch {batch_size} of 28x28", times, "forward pass")


def reading_rows(repeats: int, num_images: int) -> list[dict]:
    """Reading a parquet file into memory beside decoding its images."""
    entries = []
    for image in make_images("1 M, 28x28", num_images).all_images().numpy():
        file = io.BytesIO()
        Image.fromarray(image[0]).save(file, "PNG")
        entries.append({"bytes": file.getvalue(), "path": None})
    with TemporaryDirectory() as folder:
        path, features = Path(folder, "images.parquet"), datasets.Features({"image": datasets.Image()})
        datasets.Dataset.from_dict({"image": entries}, features=features).to_parquet(path)
        config = DistillationConfig(train_data_dir=str(path), cache_dir=folder)
        sides = {
            "decode the images": lambda: [to_array(read_picture(entry).image, 1, 28) for entry in entries],
            "read the file": lambda: load_data(config),
        }
        times = interleaved(sides, repeats, warm_up=1)
    return row(f"{num_images} images of 28x28 from a parquet file", times, "decode the images")


def evaluation_rows(repeats: int, num_images: int) -> list[dict]:
    """Measuring beside making the images that are measured, 4 steps on the demo's network."""
    unet = make_network("demo, 8x8").eval().requires_grad_(False)
    pipeline = ProgressiveDistillationPipeline(unet, ProgressiveDistillationScheduler())
    began = time.perf_counter()
    metric = ImageMetrics(load_digits())
    set_up = time.perf_counter() - began
    images = as_bytes(generate(pipeline, num_images, 4))

    def measure():
        generated = metric.collect()
        generated.add(images)
        metric.measure(generated)

    sides = {"make the images": lambda: generate(pipeline, num_images, 4), "measure them": measure}
    times = interleaved(sides, repeats, warm_up=1)
    times["features of the real images"] = [set_up] * repeats
    return row(f"evaluation of {num_images} images of 8x8", times, "make the images", "s")
