"""Data sets of the Hub, wherever the libraries keep them."""

import pytest
import torch
from helpers.hub_repository import File
from helpers.image_folders import as_bytes, loaded, make_folder, make_table

from diffusers_progdistill.data import load_data
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training.config import DistillationConfig


def put(hub, folder, name="me/pics"):
    """A data set with the files of a folder."""
    repo = hub.add_repo(name, "datasets")
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    repo.commit("files", "me", {name: File(path.read_bytes()) for name, path in files.items()})


def from_hub(tmp_path, **options):
    return load_data(DistillationConfig(dataset_name="me/pics", **options))


@pytest.fixture(params=["default", "elsewhere", "beside", "cache_dir"])
def cache(request, tmp_path, monkeypatch):
    """Options for caches in other places, as `HF_HUB_CACHE` and `HF_DATASETS_CACHE` say."""
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache" / "datasets")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache" / "datasets" / "downloads")
    if request.param == "elsewhere":
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "scratch" / "hub"))
    if request.param == "beside":
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "own")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "scratch"))
    return {"cache_dir": str(tmp_path / "third")} if request.param == "cache_dir" else {}


def test_image_files_of_the_hub(hub, cache, tmp_path):
    folder = make_folder(tmp_path / "images", [f"{k}.png" for k in range(3)])
    put(hub, folder)
    assert torch.equal(from_hub(tmp_path, **cache).all_images(), loaded(folder).all_images())


def test_splits_of_the_hub(hub, tmp_path, caplog):
    for name, numbers in (("train", range(4)), ("test", range(4, 6))):
        make_table(
            tmp_path / "set" / "data" / f"{name}-00000-of-00001.parquet", numbers, label=[k % 2 for k in numbers]
        )
    put(hub, tmp_path / "set")
    cache = {"cache_dir": str(tmp_path / "cache")}
    data = from_hub(tmp_path, class_column="label", **cache)
    assert len(data) == 4 and data.labels.tolist() == [0, 1, 0, 1]
    assert "the split train is used; left out: test (2 images)" in caplog.text
    assert len(from_hub(tmp_path, train_split="test", **cache)) == 2
    with pytest.raises(InputError, match=r"--train_split val .*\(train, test\)"):
        from_hub(tmp_path, train_split="val", **cache)


def test_a_table_of_the_hub_that_names_files_of_this_machine(hub, tmp_path):
    import datasets

    (tmp_path / "set").mkdir()
    (tmp_path / "secret.png").write_bytes(as_bytes()["bytes"])
    rows = {"image": [{"bytes": None, "path": str(tmp_path / "secret.png")}]}
    features = datasets.Features({"image": datasets.Image(decode=False)})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "set" / "x.parquet"))
    put(hub, tmp_path / "set")
    with pytest.raises(InputError, match="--dataset_name me/pics: row 0 names secret.png, which leads out"):
        from_hub(tmp_path, cache_dir=str(tmp_path / "cache"))
