"""Features in a file: rows as they were written, files of numpy itself, and what is no such file."""

import numpy as np
import pytest
import torch

from diffusers_progdistill.evaluation import feature_file
from diffusers_progdistill.evaluation.feature_file import open_features, write_features


FEATURES = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path):
    write_features(tmp_path / "f.npy", iter(FEATURES.split(7)), 50)
    return tmp_path / "f.npy"


def test_it_is_a_file_of_numpy(path, tmp_path):
    assert (np.load(path) == FEATURES.numpy()).all()
    # And one that the library wrote is read.
    np.save(tmp_path / "theirs.npy", FEATURES.numpy())
    table = open_features(tmp_path / "theirs.npy")
    assert table.shape == (50, 6) and torch.equal(table[torch.arange(50)], FEATURES)


@pytest.mark.parametrize("index", [[0], [49, 3, 3, 0], [], list(range(49, -1, -1))])
def test_rows_by_their_numbers(path, index, monkeypatch):
    monkeypatch.setattr(feature_file, "PART_BYTES", 100)
    table, index = open_features(path), torch.tensor(index, dtype=torch.long)
    assert torch.equal(table[index], FEATURES[index])
    selection = table.select(index)
    assert len(selection) == len(index) and torch.equal(torch.cat([FEATURES[:0], *selection.parts()]), FEATURES[index])
    some = torch.arange(len(index))[::2]
    assert torch.equal(selection[some], FEATURES[index][some])
    parts = list(table.parts())
    assert len(parts) > 10 and torch.equal(torch.cat(parts), FEATURES)


@pytest.mark.parametrize("cut", [0, 4, 30, 200, -1])
def test_a_file_that_is_not_whole_is_none(path, cut):
    path.write_bytes(path.read_bytes()[:cut])
    assert open_features(path) is None


@pytest.mark.parametrize(
    "array",
    [np.zeros((3, 2), np.float16), np.zeros(3, "<f4"), np.zeros((3, 2), "<f4", order="F"), np.zeros((3, 2), ">f4")],
)
def test_a_file_of_something_else_is_none(array, tmp_path):
    np.save(tmp_path / "f.npy", array)
    assert open_features(tmp_path / "f.npy") is None
    assert open_features(tmp_path / "nowhere.npy") is None


def test_fewer_features_than_images_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="49 features of 50 images"):
        write_features(tmp_path / "f.npy", iter([FEATURES[:49]]), 50)


def test_a_file_is_read_on_when_another_takes_its_place(path, tmp_path):
    table = open_features(path)
    np.save(tmp_path / "new.npy", FEATURES.numpy() + 1)
    (tmp_path / "new.npy").replace(path)
    assert torch.equal(table[torch.arange(50)], FEATURES)
