"""Writes Fashion-MNIST's training images as a parquet file that `--train_data_dir` takes.

apt-get install dataset-fashion-mnist
python benchmarks/quality/fashion_mnist/prepare.py fashion-mnist.parquet
"""

import argparse
import gzip
import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image


NAMES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images `(num_images, 28, 28)` and labels of `train` or `t10k`: idx files, with headers of 16 and 8 bytes."""
    raw = [
        gzip.decompress((folder / f"{part}-{kind}-ubyte.gz").read_bytes()) for kind in ("images-idx3", "labels-idx1")
    ]
    return np.frombuffer(raw[0], np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(raw[1], np.uint8, offset=8)


def as_png(array: np.ndarray) -> dict:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--part", choices=["train", "t10k"], default="train")
    options = parser.parse_args()
    images, labels = read(options.folder, options.part)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = {"image": [as_png(image) for image in images], "label": labels.tolist()}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(options.output))
    print(f"{options.output}: {len(images):,} images")


if __name__ == "__main__":
    main()
