"""Real splits are told from names; what is left out is counted."""

import pytest
import torch
from helpers.image_folders import found, labels_by_name, loaded, make_folder, make_table, names_found

from diffusers_progdistill.errors import InputError


SPLITS = {
    "train and test": ("train/{}.png", "test/{}.png"),
    "train and val": ("train/{}.png", "val/{}.png"),
    "upper case": ("Train/{}.png", "Validation/{}.png"),
    "years": ("train2017/{}.png", "val2017/{}.png"),
    "words around": ("training_set/{}.png", "test-images/{}.png"),
    "classes within": ("train/cat/{}.png", "test/cat/{}.png"),
    "splits within a folder": ("images/train/{}.png", "images/dev/{}.png"),
    "splits within classes": ("cat/train/{}.png", "cat/test/{}.png"),
    "deep": ("train/a/b/c/{}.png", "eval/a/{}.png"),
}


@pytest.mark.parametrize("train, other", SPLITS.values(), ids=SPLITS.keys())
def test_the_train_split_is_used_and_the_others_counted(train, other, tmp_path, caplog):
    names = [train.format(k) for k in range(5)]
    folder = make_folder(tmp_path / "images", names + [other.format(k) for k in range(3)])
    assert names_found(folder) == names
    (line,) = caplog.messages
    assert "the split train is used; left out: " in line and "(3 images)" in line


def test_another_split_is_chosen_by_any_of_its_names(tmp_path):
    folder = make_folder(tmp_path / "images", ["train/1.png", "val/2.png", "test/3.png"])
    for wanted in ("validation", "val", "dev", "VAL"):
        assert names_found(folder, train_split=wanted) == ["val/2.png"]
    assert names_found(folder, train_split="test") == ["test/3.png"]
    with pytest.raises(InputError, match=r"--train_split unseen .* \(test, train, validation\)"):
        found(folder, train_split="unseen")


def test_a_set_without_splits_has_only_a_training_set(tmp_path):
    folder = make_folder(tmp_path / "images", ["a/1.png", "b/2.png"])
    assert len(names_found(folder, train_split="train")) == 2
    with pytest.raises(InputError, match="--train_split test .*there are none"):
        found(folder, train_split="test")


def test_classes_called_as_splits_are_said_to_be_classes(tmp_path, caplog):
    names = ["bus/1.png", "test/2.png", "train/3.png"]
    folder = make_folder(tmp_path / "images", names)
    assert names_found(folder) == names
    (line,) = caplog.messages
    assert "test, train not taken for splits" in line and "--train_split train uses one" in line
    assert labels_by_name(folder) == {"bus/1.png": 0, "test/2.png": 1, "train/3.png": 2}
    assert names_found(folder, train_split="train") == ["train/3.png"]


@pytest.mark.parametrize("names", [["1.png", "test/2.png"], ["test/1.png", "val/2.png"], ["a/1.png", "dev/2.png"]])
def test_a_test_set_that_is_used_is_said_to_be(names, tmp_path, caplog):
    folder = make_folder(tmp_path / "images", names)
    assert names_found(folder) == names
    assert "not taken for splits" in caplog.text and "all images are used" in caplog.text
    (split,) = {name.split("/")[0] for name in names if "/" in name} & {"test", "dev"}
    assert names_found(folder, train_split=split) == [name for name in names if name.startswith(split)]


def test_a_class_called_train_needs_no_notice(tmp_path, caplog):
    names = ["airplane/1.png", "bus/2.png", "train/3.png"]
    assert names_found(make_folder(tmp_path / "images", names)) == names and caplog.messages == []


def test_a_split_of_any_name_beside_the_others_can_be_asked_for(tmp_path):
    names = ["test/1.png", "train/2.png", "unlabeled/3.png", "0.png"]
    folder = make_folder(tmp_path / "images", names)
    assert names_found(folder) == sorted(names)
    assert names_found(folder, train_split="unlabeled") == ["unlabeled/3.png"]
    with pytest.raises(InputError, match=r"--train_split dev .*\(test, train, unlabeled\)"):
        found(folder, train_split="dev")


def test_splits_are_not_classes(tmp_path):
    folder = make_folder(tmp_path / "images", ["train/1.png", "train/2.png", "test/3.png"])
    with pytest.raises(InputError, match="--class_column label .*no labels"):
        found(folder, class_column="label")


TABLES = {
    "shards": ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
    "shards with a fingerprint": (
        "data/train-00000-of-00001-ab12.parquet",
        "data/validation-00000-of-00001-cd.parquet",
    ),
    "names": ("train.parquet", "test.parquet"),
    "prefixes": ("cifar10-train.parquet", "cifar10-test.parquet"),
    "folders": ("default/train/0000.parquet", "default/test/0000.parquet"),
    "a test set alone has a name": ("pets.parquet", "pets_test.parquet"),
    "another split": ("train-00000-of-00001.parquet", "unlabeled-00000-of-00001.parquet"),
}


@pytest.mark.parametrize("train, other", TABLES.values(), ids=TABLES.keys())
def test_train_and_test_tables_are_not_one_training_set(train, other, tmp_path, caplog):
    folder = tmp_path / "tables"
    make_table(folder / train, range(10))
    plain = loaded(folder).all_images()
    make_table(folder / other, range(10, 16))
    caplog.clear()
    assert len(plain) == 10 and torch.equal(loaded(folder).all_images(), plain)
    assert "the split train is used; left out: " in caplog.text and "(1 table)" in caplog.text


def test_tables_without_a_training_set_are_refused_and_one_can_be_chosen(tmp_path):
    folder = tmp_path / "tables"
    make_table(folder / "test-00000-of-00001.parquet", range(2))
    assert len(loaded(folder)) == 2
    make_table(folder / "val-00000-of-00001.parquet", range(3))
    with pytest.raises(InputError, match=r"--train_split .*\(test, validation\)"):
        found(folder)
    assert len(loaded(folder, train_split="val")) == 3


PLAIN = {
    "numbers": ["a.parquet", "b.parquet"],
    "shards of one name": ["pics-00000-of-00002.parquet", "pics-00001-of-00002.parquet"],
    "shards of train": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
    "a class called train": ["bus.parquet", "train.parquet"],
    "brackets": ["x[1].parquet", "x[2].parquet"],
    "a sign": ["a#1.parquet", "b 50%.parquet"],
}


@pytest.mark.parametrize("names", PLAIN.values(), ids=PLAIN.keys())
def test_several_tables_are_one_data_set(names, tmp_path):
    folder = tmp_path / "tables"
    for number, name in enumerate(names):
        make_table(folder / name, [2 * number, 2 * number + 1])
    images = make_folder(tmp_path / "images", [f"{k}.png" for k in range(4)])
    assert torch.equal(loaded(folder).all_images(), loaded(images).all_images())


def test_data_sets_saved_to_disk_are_read(tmp_path):
    import datasets

    parts = {
        name: datasets.Dataset.from_parquet(str(make_table(tmp_path / f"{name}.parquet", numbers)))
        for name, numbers in (("train", range(4)), ("test", range(2)))
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    assert len(loaded(tmp_path / "saved")) == 4
    assert len(loaded(tmp_path / "saved" / "test")) == 2


def test_an_empty_shard_and_an_empty_set(tmp_path):
    make_table(tmp_path / "x" / "a.parquet", [])
    with pytest.raises(InputError, match="holds no rows"):
        found(tmp_path / "x")
    make_table(tmp_path / "x" / "b.parquet", [0, 1])
    assert len(loaded(tmp_path / "x")) == 2


@pytest.mark.parametrize("content", [b"", b"PAR1", b"version https://git-lfs.github.com/spec/v1\n"])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_damaged_tables_are_refused_in_one_line(name, content, tmp_path, capsys):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} cannot be read as a table") as raised:
        found(tmp_path / "x")
    assert "\n" not in str(raised.value) and capsys.readouterr().err == ""


def test_tables_whose_columns_hold_other_types_are_refused_in_one_line(tmp_path, capfd):
    for name, labels in (("a", [0, 1]), ("b", ["x", "y"])):
        make_table(tmp_path / "x" / f"{name}.parquet", [0, 1], label=labels)
    capfd.readouterr()
    with pytest.raises(InputError, match="cannot be loaded") as raised:
        found(tmp_path / "x")
    assert "\n" not in str(raised.value) and capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("names", "said"), [(("en/a", "de/a"), True), (("a", "more/a"), True), (("x/a", "x/b"), False)]
)
def test_tables_of_several_folders_are_one_data_set_and_said_to_be(tmp_path, caplog, names, said):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_table(tmp_path / f"{name}.parquet", [number])
    assert len(loaded(tmp_path)) == 2
    assert ("the tables of 2 folders are read as one data set" in caplog.text) == said
