"""Data sets above the limit, read anew in each epoch: a file that cannot be read ends nothing."""

import io
import json
import warnings

import numpy as np
import pytest
import torch
from helpers.broken_images import encoded
from helpers.networks import tiny_unet
from PIL import Image

from diffusers_progdistill import ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.data import BatchLayout, GlobalOrder, make_loader
from diffusers_progdistill.data import images as images_module
from diffusers_progdistill.data.findings import SENTENCES
from diffusers_progdistill.data.images import ImageData
from diffusers_progdistill.errors import DiskError
from diffusers_progdistill.training.examples import ExampleStream


COUNT = 8


@pytest.fixture(autouse=True)
def streamed(monkeypatch):
    monkeypatch.setattr(images_module, "MEMORY_LIMIT", 0)


def folder_of(path, bad=()):
    """Eight pictures of 8x8 pixels whose first value is their number; the bad ones are cut in half."""
    path.mkdir()
    for k in range(COUNT):
        pixels = np.random.default_rng(k).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        pixels[0, 0] = k
        file = encoded(Image.fromarray(pixels), "PNG")
        (path / f"{k}.png").write_bytes(file[: len(file) // 2] if k in bad else file)
    return path


def data_of(path) -> ImageData:
    return ImageData([{"bytes": None, "path": str(path / f"{k}.png")} for k in range(COUNT)], range(COUNT), 3, 8)


@pytest.mark.parametrize("bad", [(), (3,), (0, 7), (2, 3, 4), (7,)], ids=str)
@pytest.mark.parametrize("workers", [0, 1])
def test_the_next_image_takes_the_place_of_a_bad_one(tmp_path, bad, workers):
    if workers and bad != (0, 7):
        return
    data, order = data_of(folder_of(tmp_path / "x", bad)), GlobalOrder(COUNT, BatchLayout(4), 0, 3, 4)
    found = [(images[:, 0, 0, 0].tolist(), labels.tolist()) for images, labels in make_loader(data, order, workers)]
    good = [next((k + step) % COUNT for step in range(COUNT) if (k + step) % COUNT not in bad) for k in range(COUNT)]
    wanted = [[good[n] for n in batch] for batch in order]
    assert [images for images, _ in found] == wanted == [labels for _, labels in found]
    assert data.findings.count("replaced") == len(bad) == data.findings.count("skipped")


def test_files_that_vanish_or_change_in_the_run_are_counted(tmp_path, caplog):
    folder = folder_of(tmp_path / "x")
    data = data_of(folder)
    assert data.findings.count(*SENTENCES) == 0
    (folder / "2.png").unlink()
    (folder / "5.png").write_bytes(b"another thing")
    (folder / "6.png").write_bytes((folder / "1.png").read_bytes())
    images, labels = data.__getitems__(list(range(COUNT)))
    assert images[:, 0, 0, 0].tolist() == [0, 1, 3, 3, 4, 1, 1, 7] and labels.tolist() == [0, 1, 3, 3, 4, 6, 6, 7]
    for _ in range(3):
        data.__getitems__([2, 5])
    assert data.findings.count("replaced") == 2
    # Each is said once.
    assert len(caplog.records) == 2 and "x/2.png (No such file or directory)" in caplog.text


def test_a_data_set_that_is_gone_ends_the_run_in_one_line(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "x")
    data = data_of(folder)
    for path in folder.iterdir():
        path.unlink()
    assert data.num_skipped == 0
    for workers in (0, 1):
        with pytest.raises(DiskError, match="images in a row could not be read"):
            list(make_loader(data, GlobalOrder(COUNT, BatchLayout(4), 0, 3, 4), workers))


def test_notices_become_rare(tmp_path, caplog):
    data = ImageData([encoded(Image.new("RGB", (8, 8)), "PNG")] * 100, None, 3, 8)
    data._entries = [b"no"] * 99 + data._entries[99:]
    data.__getitems__(list(range(100)))
    assert data.findings.count("replaced") == 99
    # The first five, then at 8, 16, 32 and 64.
    assert len(caplog.records) == 9


def test_in_memory_a_bad_file_leaves_the_order_to_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(images_module, "MEMORY_LIMIT", 2**31)
    with_bad, without = data_of(folder_of(tmp_path / "x", (3,))), data_of(folder_of(tmp_path / "y"))
    assert len(with_bad) == COUNT - 1
    rest = [k for k in range(COUNT) if k != 3]
    assert torch.equal(with_bad.all_images(), without.all_images()[rest]) and with_bad.labels.tolist() == rest


@pytest.fixture
def chain(tmp_path):
    """Runs a chain on a streamed folder with cut files; returns its exit status."""
    teacher, folder = tmp_path / "t", folder_of(tmp_path / "cut", (1, 6))
    save_pipeline(tiny_unet(8, 3, widths=(8,)), ProgressiveDistillationScheduler(), teacher)

    def run(out, *options):
        argv = ["distill", "--pretrained_teacher_model", str(teacher), "--train_data_dir", str(folder)]
        argv += ["--output_dir", str(out), "--start_steps", "2", "--end_steps", "1", "--updates_per_stage", "2"]
        argv += ["--train_batch_size", "4", "--eval_images", "0", "--report_to", "none", "--checkpointing_steps", "1"]
        return main([*argv, *options])

    return run


def weights(out):
    return (out / "steps-1" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


def test_a_run_with_cut_files_ends_and_resumes_with_the_same_weights(tmp_path, chain, monkeypatch, capfd, caplog):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert chain(whole) == 0
    assert "could not be read in training, each replaced by the next of the data set: 2: " in caplog.text

    def interrupted(self, update, read_update=ExampleStream.read_update):
        if update == 2:
            raise KeyboardInterrupt
        return read_update(self, update)

    with monkeypatch.context() as patch:
        patch.setattr(ExampleStream, "read_update", interrupted)
        assert chain(resumed) == 130
    assert any((resumed / "checkpoints").iterdir())
    assert chain(resumed) == 0
    assert weights(whole) == weights(resumed)
    assert "Traceback" not in capfd.readouterr().err


def test_the_record_counts_what_was_skipped(tmp_path, chain, monkeypatch):
    monkeypatch.setattr(images_module, "MEMORY_LIMIT", 2**31)
    filters = list(warnings.filters)
    assert chain(tmp_path / "out") == 0
    # Pillow was quiet in the run alone.
    assert warnings.filters == filters
    record = json.loads((tmp_path / "out" / "chain.json").read_text())
    assert record["settings"]["num_images"] == COUNT - 2 and record["about"]["data"]["skipped"] == 2


def test_pictures_opened_from_bytes_are_closed(recwarn):
    image = Image.open(io.BytesIO(encoded(Image.new("RGB", (8, 8)), "PNG")))
    data = ImageData([image] * 2, None, 3, 8)
    # A picture that somebody gave stays theirs, and can be read again.
    assert torch.equal(data.__getitems__([0])[0], data.__getitems__([1])[0]) and image.getpixel((0, 0)) == (0, 0, 0)
