"""Thousands of seeded, damaged image files of every format in a folder: none ends a run, all are counted."""

import numpy as np
import pytest
from helpers.broken_images import FORMATS, MORE_FORMATS, damaged, mutated, whole_files, with_exif

from diffusers_progdistill.data import images as images_module
from diffusers_progdistill.data import load_data
from diffusers_progdistill.data.images import ImageData
from diffusers_progdistill.training.config import TeacherConfig


def write(folder, count: int, seed: int) -> int:
    folder.mkdir()
    for name, content in mutated(count, seed):
        (folder / name).write_bytes(content)
    return count


def load(folder, tmp_path) -> ImageData:
    return load_data(TeacherConfig(train_data_dir=str(folder), resolution=8, cache_dir=str(tmp_path / "cache")))


def test_whole_files_of_all_formats_are_used():
    files = [{"bytes": file, "path": f"{k}.{ending}"} for k, (ending, file) in enumerate(whole_files(0))]
    assert len(files) > 5 * len((*FORMATS, *MORE_FORMATS))
    data = ImageData(files, None, 3, 8)
    assert data.findings.count("skipped") == 0 and len(data) == len(files)


def test_whole_files_with_odd_exif_blocks_are_used():
    rng = np.random.default_rng(1)
    files = [{"bytes": with_exif(rng)[1], "path": f"{k}"} for k in range(200)]
    assert len(ImageData(files, None, 3, 8)) == 200


def test_damaged_files_in_a_folder_are_used_or_counted(tmp_path, capfd):
    count = write(tmp_path / "x", 600, 0)
    data = load(tmp_path / "x", tmp_path)
    assert len(data) + data.num_skipped == count and data.num_skipped == data.findings.count("skipped")
    assert min(len(data), data.num_skipped) > 150
    assert "Traceback" not in capfd.readouterr().err


def test_streamed_damaged_files_give_whole_batches(monkeypatch):
    monkeypatch.setattr(images_module, "MEMORY_LIMIT", 0)
    entries = [content for _, content in mutated(300, 3)]
    data = ImageData(entries, None, 3, 8)
    images, _ = data.__getitems__(range(300))
    assert images.shape == (300, 3, 8, 8) and 20 < data.findings.count("replaced") < 68


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path, capfd):
    count = write(tmp_path / "x", 10_000, 2)
    data = load(tmp_path / "x", tmp_path)
    assert len(data) + data.num_skipped == count and data.num_skipped == data.findings.count("skipped")
    assert "Traceback" not in capfd.readouterr().err


def test_damage_is_a_function_of_the_seed():
    assert whole_files.__wrapped__(0) == whole_files(0)
    file = whole_files(0)[0][1]
    assert damaged(file, np.random.default_rng(5)) == damaged(file, np.random.default_rng(5))
    assert list(mutated(130, 7)) == list(mutated(130, 7))
