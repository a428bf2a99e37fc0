"""Images from every source, and the order they come in."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from diffusers_progdistill.data import BatchLayout, GlobalOrder, decode, load_data, load_digits
from diffusers_progdistill.data import images as images_module
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.training.config import DistillationConfig, TeacherConfig
from diffusers_progdistill.training.examples import BatchNoise
from diffusers_progdistill.training.run import Run


@pytest.fixture
def folder(tmp_path):
    """Two classes of three colour images, 20 x 12 pixels."""
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(3):
            array = rng.integers(0, 255, (12, 20, 3), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / "images" / name / f"{k}.png")
    return tmp_path / "images"


def config(folder, tmp_path, **options):
    return DistillationConfig(train_data_dir=str(folder), cache_dir=str(tmp_path / "cache"), **options)


def test_digits_are_the_1797_scans_with_their_labels():
    data = load_data(DistillationConfig(dataset_name="digits"))
    assert data.all_images().shape == (1797, 1, 8, 8) and data.num_classes == 10
    assert data.all_images().min() == 0 and data.all_images().max() == 255
    assert load_data(DistillationConfig(dataset_name="digits", resolution=16)).all_images().shape[-1] == 16


def test_a_folder_is_cropped_resized_and_labelled(folder, tmp_path):
    data = load_data(config(folder, tmp_path, resolution=6, class_column="label"), channels=3)
    images, labels = data.__getitems__([0, 5])
    assert images.shape == (2, 3, 6, 6) and images.dtype == torch.uint8
    assert labels.tolist() == [0, 1] and data.class_names == ["a", "b"]
    whole = load_data(config(folder, tmp_path, resolution=12)).all_images()[0]
    original = np.asarray(Image.open(folder / "a" / "0.png"))
    np.testing.assert_array_equal(whole.permute(1, 2, 0).numpy(), original[:, 4:16])


def test_a_parquet_file_gives_what_the_folder_gives(folder, tmp_path):
    import datasets

    table = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "c"))
    table.to_parquet(tmp_path / "set.parquet")
    a = load_data(config(folder, tmp_path, resolution=8)).all_images()
    b = load_data(config(tmp_path / "set.parquet", tmp_path, resolution=8)).all_images()
    assert torch.equal(a, b)


def test_images_too_many_for_memory_are_the_same(folder, tmp_path, monkeypatch):
    options = {"resolution": 8, "class_column": "label"}
    # Slices that do not end with the data.
    monkeypatch.setattr(decode, "READ_AT_ONCE", 4)
    images, labels = load_data(config(folder, tmp_path, **options)).__getitems__([5, 0, 3])
    monkeypatch.setattr(images_module, "MEMORY_LIMIT", 0)
    kept = load_data(config(folder, tmp_path, **options))
    assert len(kept) == 6 and kept._images is None
    again, labels_again = kept.__getitems__([5, 0, 3])
    assert torch.equal(again, images) and torch.equal(labels_again, labels)
    digits = load_data(DistillationConfig(dataset_name="digits", resolution=16))
    assert digits._images is None and digits.__getitems__([1, 2])[0].shape == (2, 1, 16, 16)


def test_unreadable_images_are_skipped_and_counted(folder, tmp_path, caplog):
    (folder / "a" / "1.png").write_bytes(b"not a picture")
    data = load_data(config(folder, tmp_path, resolution=8, class_column="label"))
    assert len(data) == 5 and len(data.labels) == 5 and data.labels.tolist() == [0, 0, 1, 1, 1]
    assert "1.png" in caplog.text and "1 of 6" in caplog.text


def test_nothing_readable_is_refused(folder, tmp_path):
    for path in folder.glob("*/*.png"):
        path.write_bytes(b"not a picture")
    with pytest.raises(InputError, match="no readable image"):
        load_data(config(folder, tmp_path, resolution=8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="--train_data_dir"):
        load_data(config(tmp_path / "empty", tmp_path))


def test_gray_and_colour_are_told_apart(folder, tmp_path):
    with pytest.raises(InputError, match="in_channels=1"):
        load_data(config(folder, tmp_path), channels=1)
    with pytest.raises(InputError, match="in_channels=3"):
        load_data(DistillationConfig(dataset_name="digits"), channels=3)


def test_any_split_of_a_global_batch_trains_on_the_same_images():
    def sample_teacher(parts, world):
        streams = [list(GlobalOrder(50, BatchLayout(8, parts, r, world), 0, 3, 13)) for r in range(world)]
        return [
            [n for part in range(parts) for r in range(world) for n in streams[r][update * parts + part]]
            for update in range(13)
        ]

    whole = sample_teacher(1, 1)
    assert whole == sample_teacher(2, 1) == sample_teacher(1, 2) == sample_teacher(2, 2)
    # Six whole batches an epoch, no image twice in it, another order in the next.
    epoch = sum(whole[:6], [])
    assert len(set(epoch)) == 48 and whole[6] != whole[0]
    assert list(GlobalOrder(50, BatchLayout(8), 0, 3, 13, first_update=5)) == whole[5:]


def test_draws_are_a_function_of_seed_stage_and_update():
    accelerator, data = Accelerator(cpu=True), load_digits()

    def draw(seed=0, num_steps=4, update=7):
        run = Run(TeacherConfig(seed=seed, random_flip=True), accelerator, data, 6)
        return BatchNoise(run, Stage("steps", 10, 5, num_steps, label_dropout=0.5)).draw(update, (1, 2, 2))

    for a, b in zip(draw(), draw()):
        assert torch.equal(a, b)
    for other in (draw(seed=1), draw(num_steps=2), draw(update=8)):
        assert not torch.equal(draw()[1], other[1])
