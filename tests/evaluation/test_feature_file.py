"""Features in a file: rows as they were written, files of safetensors itself, and what is no such file."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_progdistill.evaluation import feature_file
from diffusers_progdistill.evaluation.feature_file import Selection, open_features, write_features


FEATURES = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path):
    write_features(tmp_path / "f.safetensors", iter(FEATURES.split(7)), 50)
    return tmp_path / "f.safetensors"


def test_it_is_a_file_of_safetensors(path, tmp_path):
    assert torch.equal(load_file(path)["features"], FEATURES)
    # And one that the library wrote is read.
    save_file({"features": FEATURES}, tmp_path / "theirs.safetensors")
    table = open_features(tmp_path / "theirs.safetensors")
    assert table.shape == (50, 6) and torch.equal(table[torch.arange(50)], FEATURES)


@pytest.mark.parametrize("index", [[0], [49, 3, 3, 0], [], list(range(49, -1, -1))])
def test_rows_by_their_numbers(path, index, monkeypatch):
    monkeypatch.setattr(feature_file, "PART_BYTES", 100)
    table, index = open_features(path), torch.tensor(index, dtype=torch.long)
    assert torch.equal(table[index], FEATURES[index])
    selection = Selection(table, index)
    assert len(selection) == len(index) and torch.equal(torch.cat(list(selection.parts())), FEATURES[index])
    some = torch.arange(len(index))[::2]
    assert torch.equal(selection[some], FEATURES[index][some])
    parts = list(table.parts())
    assert len(parts) > 10 and torch.equal(torch.cat(parts), FEATURES)


@pytest.mark.parametrize("cut", [0, 4, 30, 200, -1])
def test_a_file_that_is_not_whole_is_none(path, cut):
    path.write_bytes(path.read_bytes()[:cut])
    assert open_features(path) is None


@pytest.mark.parametrize(
    "tensors",
    [
        {"images": torch.zeros(3, 2)},
        {"features": torch.zeros(3, 2, dtype=torch.float16)},
        {"features": torch.zeros(3)},
        {"features": torch.zeros(3, 2), "mean": torch.zeros(2)},
    ],
)
def test_a_file_of_something_else_is_none(tensors, tmp_path):
    save_file(tensors, tmp_path / "f.safetensors")
    assert open_features(tmp_path / "f.safetensors") is None
    assert open_features(tmp_path / "nowhere.safetensors") is None


def test_fewer_features_than_images_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="49 features of 50 images"):
        write_features(tmp_path / "f.safetensors", iter([FEATURES[:49]]), 50)


def test_a_file_is_read_on_when_another_takes_its_place(path, tmp_path):
    table = open_features(path)
    save_file({"features": FEATURES + 1}, tmp_path / "new")
    (tmp_path / "new").replace(path)
    assert torch.equal(table[torch.arange(50)], FEATURES)
