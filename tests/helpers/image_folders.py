"""Folders of tiny images, and what is found in them."""

import json

import numpy as np
from PIL import Image

from diffusers_progdistill.data.load import find_images, load_data
from diffusers_progdistill.training.config import DistillationConfig


def picture(number=0, mode="RGB", size=(8, 8)):
    """An image that no other number gives."""
    array = np.random.default_rng(number).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(array).convert(mode)


def make_folder(folder, names):
    """A folder with an image of each name; number k is `picture(k)`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return folder


def as_bytes(number=0):
    """A PNG as a table holds it."""
    import io

    file = io.BytesIO()
    picture(number).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def make_table(path, numbers, **columns):
    """A parquet file of images; `columns` are lists, or pairs of a list and its feature."""
    import datasets

    features = {"image": datasets.Image(decode=False)}
    content = {"image": [None if number is None else as_bytes(number) for number in numbers]}
    for name, column in columns.items():
        values, feature = column if isinstance(column, tuple) else (column, None)
        content[name] = values
        features[name] = feature or datasets.Dataset.from_dict({"x": values}).features["x"]
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(content, features=datasets.Features(features)).to_parquet(str(path))
    return path


def write_lines(path, rows):
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def config_of(folder, **options):
    return DistillationConfig(train_data_dir=str(folder), cache_dir=str(folder) + "-cache", **options)


def found(folder, **options):
    """What is found, before anything is decoded."""
    return find_images(config_of(folder, **options))


def names_found(folder, **options):
    """The images of a folder that are used, relative to it."""
    entries = found(folder, **options).entries
    return [entry.removeprefix(str(folder) + "/") for entry in entries]


def labels_by_name(folder, **options):
    """The label of each image that is used, by its name."""
    result = found(folder, class_column=options.pop("class_column", "label"), **options)
    names = [entry.removeprefix(str(folder) + "/") for entry in result.entries]
    return dict(zip(names, result.labels.values))


def loaded(folder, **options):
    return load_data(config_of(folder, **options))
