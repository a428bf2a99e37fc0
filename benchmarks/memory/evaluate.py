"""Peak memory of `progdistill evaluate` on a data set of generated images, above what its networks need by themselves.

python benchmarks/memory/evaluate.py --images 200000 --form folder
"""

import argparse
import io
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil


CLASSES, MIB = 10, 2**20


def make_encoded(number: int, size: int) -> tuple[bytes, int]:
    """Image of a number, a smooth colour field with some noise, as PNG; and its class, which it shows."""
    from PIL import Image

    draw, label = np.random.default_rng(number), number % CLASSES
    field = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    field[:2, :2] = 25 * label
    picture = np.asarray(Image.fromarray(field).resize((size, size), Image.Resampling.BILINEAR))
    file = io.BytesIO()
    # Quantised, so that a file is small as those of pictures are.
    Image.fromarray(picture & 0xF8).save(file, "PNG", compress_level=1)
    return file.getvalue(), label


def make_images(place: Path, form: str, count: int, size: int) -> Path:
    """The data set: a folder with a folder for each class, or a parquet file."""
    if form == "folder":
        for label in range(CLASSES):
            (place / "images" / str(label)).mkdir(parents=True)
        for number in range(count):
            content, label = make_encoded(number, size)
            (place / "images" / str(label) / f"{number}.png").write_bytes(content)
        return place / "images"
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])
    with parquet.ParquetWriter(place / "images.parquet", schema) as writer:
        for first in range(0, count, 5000):
            made = [make_encoded(number, size) for number in range(first, min(first + 5000, count))]
            columns = {"image": [{"bytes": content} for content, _ in made], "label": [label for _, label in made]}
            writer.write_table(pa.table(columns, schema))
    return place / "images.parquet"


def make_model(place: Path, size: int) -> Path:
    """A small network with random weights: its images are noise, but they are measured all the same."""
    from diffusers import UNet2DModel

    from diffusers_progdistill import ProgressiveDistillationScheduler, save_pipeline

    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = UNet2DModel(sample_size=size, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, **blocks)
    save_pipeline(unet, ProgressiveDistillationScheduler(), place / "model")
    return place / "model"


def make_vision_model(place: Path) -> Path:
    """A vision model of transformers with random weights, so small that a large data set is seen in minutes."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(place / "vision")
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "crop_size": 28}
    (place / "vision" / "preprocessor_config.json").write_text(json.dumps(settings))
    return place / "vision"


class Watch(threading.Thread):
    """
    Looks at the memory of this process: `rss` is what is resident, ten times a second, and `uss` what would be free
    without it, twice a second, since it takes longer to find out.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.process, self.peak = psutil.Process(), {"rss": 0, "uss": 0}

    def look(self, whole: bool = True) -> dict[str, int]:
        found = self.process.memory_full_info() if whole else self.process.memory_info()
        now = {name: getattr(found, name) for name in self.peak if hasattr(found, name)}
        self.peak.update({name: max(value, self.peak[name]) for name, value in now.items()})
        return now

    def run(self):
        for number in itertools.count():
            self.look(number % 5 == 0)
            time.sleep(0.1)


def measure(options):
    """In a process of its own: what the networks need, then what the command needs, as JSON on the last line."""
    import datasets  # noqa: F401
    import torch
    import torchmetrics  # noqa: F401

    from diffusers_progdistill import ProgressiveDistillationPipeline
    from diffusers_progdistill.commands.main import main as progdistill
    from diffusers_progdistill.evaluation.extractors import CHUNK, SeededClassifier, load_extractor
    from diffusers_progdistill.evaluation.sampling import generate

    pipeline = ProgressiveDistillationPipeline.from_pretrained(options.model)
    images = torch.zeros(CHUNK, 3, options.size, options.size, dtype=torch.uint8)
    if options.feature_extractor == "classifier":
        with torch.no_grad():
            SeededClassifier(3, CLASSES)(images.float() / 255)
    else:
        load_extractor(options.feature_extractor, None)(images)
    generate(pipeline, CHUNK, 1)
    own = Watch().look()
    watch = Watch()
    watch.start()
    began = time.perf_counter()
    words = ["evaluate", str(options.model), "--train_data_dir", str(options.data), "--class_column", "label"]
    words += ["--steps", "1", "--reference_steps", "1", "--num_images", str(options.num_images)]
    words += ["--feature_extractor", options.feature_extractor, "--cache_dir", str(options.cache)]
    status = progdistill([*words, "--output_dir", str(options.cache / "out")])
    above = {name: round((watch.peak[name] - own[name]) / MIB) for name in own}
    own = {name: round(value / MIB) for name, value in own.items()}
    print(json.dumps({"status": status, "own": own, "above": above, "seconds": round(time.perf_counter() - began)}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="Images of the data set.")
    parser.add_argument("--size", type=int, default=64, help="Their height and width.")
    parser.add_argument("--form", choices=("folder", "parquet"), default="folder")
    parser.add_argument(
        "--feature_extractor", default="random", help="As of evaluate, or `random`: a tiny one with random weights."
    )
    parser.add_argument("--num_images", type=int, default=2000, help="Images that the model makes.")
    for name in ("--data", "--model", "--cache"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = parse()
    if options.data is not None:
        return measure(options)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        data = make_images(place, options.form, options.images, options.size)
        own = ["--data", data, "--model", make_model(place, options.size), "--cache", place / "cache"]
        if options.feature_extractor == "random":
            own += ["--feature_extractor", make_vision_model(place)]
        command = [sys.executable, __file__, *sys.argv[1:], *map(str, own)]
        made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(made.stdout.splitlines()[-1])
    print(
        f"{options.images:,} images of {options.size}x{options.size} in a {options.form}, {options.feature_extractor}"
    )
    print(f"networks by themselves: {result['own']['rss']} MiB resident, {result['own']['uss']} MiB unique")
    print(f"evaluate, above that:   {result['above']['rss']} MiB resident, {result['above']['uss']} MiB unique")
    print(f"exit status {result['status']} after {result['seconds']} s")


if __name__ == "__main__":
    main()
