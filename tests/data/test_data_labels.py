"""What is a label, and what each image's is."""

from decimal import Decimal

import numpy as np
import pytest
import torch
from helpers.image_folders import found, labels_by_name, loaded, make_folder, make_table, picture, write_lines

from diffusers_progdistill.data.labels import make_labels
from diffusers_progdistill.errors import InputError


def made(values, names=None):
    return make_labels(values, "--class_column label", lambda k: f"row {k}", names)


WHOLE = {
    "int": list(range(12)),
    "numpy": list(np.arange(12, dtype=np.int64)),
    "uint8": list(np.arange(12, dtype=np.uint8)),
    "whole floats": [float(k) for k in range(12)],
    "float32": list(np.arange(12, dtype=np.float32)),
    "text": [str(k) for k in range(12)],
    "text with zeros": [f"{k:03d}" for k in range(12)],
    "text of floats": [f"{k}.0" for k in range(12)],
    "decimal": [Decimal(k) for k in range(12)],
    "gaps": [0, 10, 3, 500],
}


@pytest.mark.parametrize("values", WHOLE.values(), ids=WHOLE.keys())
def test_whole_numbers_keep_their_value(values):
    labels = made(values)
    assert labels.values == [int(float(v)) for v in values] and labels.names == {}
    assert all(type(v) is int for v in labels.values)


def test_text_is_numbered_by_the_alphabet_and_truth_values_by_theirs():
    assert made(["dog", "cat", "dog"]) == made(["dog", "cat", "dog"]).__class__([1, 0, 1], {0: "cat", 1: "dog"})
    assert made([True, False, True]).values == [1, 0, 1]
    # Two names, although they are one number.
    assert made(["1", "01", "2"]).values == [1, 0, 2]
    assert made(["10", "9", "x"]).names == {0: "10", 1: "9", 2: "x"}


def test_a_class_label_column_keeps_its_numbers_and_names():
    labels = made([2, 0, None, -1], ["a", "b", "c"])
    assert labels.values == [2, 0, None, None] and labels.names == {0: "a", 1: "b", 2: "c"}
    with pytest.raises(InputError, match="row 1 has 3, but the column names 3 classes"):
        made([0, 3], ["a", "b", "c"])


@pytest.mark.parametrize("missing", [None, float("nan"), np.float64("nan"), "", "  ", "nan", Decimal("NaN")])
@pytest.mark.parametrize("others", [["cat", "dog"], [3, 1], [2.0, 0.0]])
def test_a_missing_value_is_never_a_class(missing, others):
    if isinstance(missing, str) and not isinstance(others[0], str):
        others = [str(int(v)) for v in others]
    labels = made([others[0], missing, others[1]])
    assert labels.values[1] is None
    assert [labels.values[0], labels.values[2]] == made(others).values


ODD = {
    "fractions": [0.5, 1.0],
    "infinity": [float("inf"), 1.0],
    "lists": [[1], [2]],
    "dicts": [{"id": 1}, {"id": 2}],
    "bytes": [b"cat", b"dog"],
    "negative": [0, -1],
    "negative text": ["0", "-3"],
    "huge": [0, 10**12],
    "huge text": ["0", "123456789012345678901234567890"],
    "numbers and names": [1, "cat"],
    "numbers and truth": [1, True],
    "nothing": [None, None],
    "no text": ["", " "],
}


@pytest.mark.parametrize("values", ODD.values(), ids=ODD.keys())
def test_what_is_no_label_is_refused_and_its_row_named(values):
    with pytest.raises(InputError, match="--class_column label.*(row [01]|none of the 2 images)") as raised:
        made(values)
    assert "\n" not in str(raised.value)


TABLE_COLUMNS = {
    "int64": list(range(12)),
    "text": [str(k) for k in range(12)],
    "float": [float(k) for k in range(12)],
}


@pytest.mark.parametrize("values", TABLE_COLUMNS.values(), ids=TABLE_COLUMNS.keys())
def test_class_10_of_a_table_is_label_10(values, tmp_path):
    table = make_table(tmp_path / "x.parquet", range(12), label=values)
    data = loaded(table, class_column="label")
    assert data.labels.tolist() == data.known_labels == list(range(12)) and data.num_classes == 12


def test_a_class_label_column_of_numbers_in_another_order_is_said_to_be_one(tmp_path, caplog):
    import datasets

    feature = datasets.ClassLabel(names=["0", "1", "10", "2"])
    path = make_table(tmp_path / "x.parquet", range(4), label=([0, 1, 2, 3], feature))
    assert found(path, class_column="label").labels.values == [0, 1, 2, 3]
    assert "the column numbers its classes itself: class 10 is label 2, class 2 is label 3" in caplog.text


@pytest.mark.parametrize("kind", ["class label", "text", "int"])
def test_rows_without_a_label_are_left_out_and_counted(kind, tmp_path, caplog):
    import datasets

    feature = datasets.ClassLabel(names=["cat", "dog"])
    columns = {"class label": ([0, None, 1], feature), "text": ["cat", None, "dog"], "int": [0, None, 1]}
    path = make_table(tmp_path / "x.parquet", range(3), label=columns[kind])
    data = loaded(path, class_column="label")
    assert len(data) == 2 and data.labels.tolist() == [0, 1] and data.num_classes == 2
    assert torch.equal(data.all_images(), loaded(path).all_images()[[0, 2]])
    assert "left out 1 image of 3 without a label: row 1" in caplog.text


def test_a_table_without_any_label_is_refused(tmp_path):
    path = make_table(tmp_path / "x.parquet", range(3), label=[None, None, None], kind=[[1], [2], [3]])
    with pytest.raises(InputError, match="none of the 3 images has a label"):
        found(path, class_column="label")
    with pytest.raises(InputError, match="row 0 has .*must be a whole number or a name"):
        found(path, class_column="kind")
    with pytest.raises(InputError, match="--class_column breed is not a column .*image, label, kind"):
        found(path, class_column="breed")


def test_tables_that_name_their_classes_differently_are_refused(tmp_path):
    import datasets

    for name, classes in (("a", ["cat", "dog"]), ("b", ["dog", "cat"])):
        make_table(tmp_path / "x" / f"{name}.parquet", [0, 1], label=([0, 1], datasets.ClassLabel(names=classes)))
    with pytest.raises(InputError, match="names other classes in a.parquet than in b.parquet"):
        found(tmp_path / "x", class_column="label")
    make_table(tmp_path / "x" / "b.parquet", [0, 1], kind=["a", "b"])
    with pytest.raises(InputError, match="tables with different columns"):
        found(tmp_path / "x")


FOLDERS = {
    "one level": {"a/1.png": 0, "b/1.png": 1},
    "two depths": {"a/1.png": 0, "b/sub/2.png": 1},
    "deep": {"a/x/1.png": 0, "a/y/2.png": 0, "b/x/z/3.png": 1},
    "numbers": {f"{k}/1.png": k for k in range(12)},
    "a folder around them": {"data/a/1.png": 0, "data/b/2.png": 1},
    "called as missing values": {"nan/1.png": 0, "none/2.png": 1},
    "called as splits": {"test/1.png": 0, "val/2.png": 1},
}


@pytest.mark.parametrize("labels", FOLDERS.values(), ids=FOLDERS.keys())
def test_the_first_level_of_folders_gives_the_labels(labels, tmp_path):
    assert labels_by_name(make_folder(tmp_path / "images", labels)) == labels


@pytest.mark.parametrize("form", ["{split}/{name}", "x/{split}/{name}"])
def test_classes_within_splits(form, tmp_path):
    names = [form.format(split=s, name=n) for s in ("train", "test") for n in ("a/1.png", "b/c/2.png")]
    folder = make_folder(tmp_path / "images", names)
    assert list(labels_by_name(folder).values()) == [0, 1]


def test_images_beside_the_class_folders_have_no_label(tmp_path, caplog):
    folder = make_folder(tmp_path / "images", ["0.png", "a/1.png", "b/2.png"])
    assert labels_by_name(folder) == {"a/1.png": 0, "b/2.png": 1}
    assert "left out 1 image of 3 without a label: 0.png" in caplog.text


@pytest.mark.parametrize(
    "names, why",
    [
        (["a/1.png", "a/2.png"], "only one class folder, a;"),
        (["a/b/1.png", "a/b/2.png"], "only one class folder, b;"),
        (["a/1.png", "2.png"], "only one class folder, a;"),
        (["1.png", "2.png"], "these images have no labels"),
        (["train/1.png", "test/2.png"], "these images have no labels"),
        (["train/a/1.png", "test/a/2.png"], "only one class folder, a;"),
    ],
)
def test_where_labels_were_looked_for(names, why, tmp_path):
    with pytest.raises(InputError, match=f"--class_column label.*{why}") as raised:
        found(make_folder(tmp_path / "images", names), class_column="label")
    assert "metadata.csv" in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(InputError, match="--class_column breed is not a column"):
        found(tmp_path / "images", class_column="breed")


def metadata(folder, kind, rows, name="metadata"):
    """The same rows in one of the three formats."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    if kind == "jsonl":
        write_lines(folder / f"{name}.jsonl", rows)
    elif kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    else:
        lines = [";".join(rows[0]) if kind == "csv;" else ",".join(rows[0])]
        lines += [(";" if kind == "csv;" else ",").join(str(v) for v in row.values()) for row in rows]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")


KINDS = ["jsonl", "csv", "csv;", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_come_from_metadata_of_any_format(kind, tmp_path):
    names = [f"{k}.png" for k in range(6)]
    folder = make_folder(tmp_path / "images", names)
    plain = loaded(folder).all_images()
    metadata(folder, kind, [{"file_name": name, "label": 11 - k, "text": "x"} for k, name in enumerate(names)])
    assert labels_by_name(folder) == {name: 11 - k for k, name in enumerate(names)}
    assert torch.equal(loaded(folder).all_images(), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_and_files_that_do_not_meet_are_counted(kind, tmp_path, caplog):
    folder = make_folder(tmp_path / "images", [f"{k}.png" for k in range(4)])
    metadata(folder, kind, [{"file_name": name, "label": "x"} for name in ("1.png", "gone.png", "3.png")])
    assert set(labels_by_name(folder)) == {"1.png", "3.png"}
    assert "skipped 1 row of the metadata without such an image: gone.png" in caplog.text
    assert "left out 2 of 4 images that have no row in the metadata: 0.png, 2.png" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_without_names_of_files_are_refused(kind, tmp_path):
    folder = make_folder(tmp_path / "images", ["1.png"])
    metadata(folder, kind, [{"file": "1.png", "label": "x"}])
    with pytest.raises(InputError, match=r"metadata\.\w+ has no column file_name .*it has file, label"):
        found(folder)


def test_metadata_of_several_folders(tmp_path):
    names = ["a/1.png", "a/2.png", "b/c/3.png"]
    folder = make_folder(tmp_path / "images", names)
    metadata(folder / "a", "csv", [{"file_name": f"{k}.png", "label": k} for k in (1, 2)])
    metadata(folder / "b", "jsonl", [{"file_name": "./c\\3.png", "label": "3"}])
    assert sorted(labels_by_name(folder).values(), key=str) == [1, 2, 3]
    metadata(folder, "parquet", [{"file_name": name, "label": "7"} for name in names])
    # The deepest has the last word.
    assert labels_by_name(folder)["b/c/3.png"] == 3
    metadata(folder, "csv", [{"file_name": names[0], "label": 7}])
    with pytest.raises(InputError, match="several metadata files in one folder"):
        found(folder)


def test_metadata_of_splits_and_names_in_another_normal_form(tmp_path):
    import unicodedata

    name = unicodedata.normalize("NFD", "é.png")
    folder = make_folder(tmp_path / "images", [f"train/{name}", "test/1.png"])
    metadata(folder, "csv", [{"file_name": "train/é.png", "label": 5}, {"file_name": "test/1.png", "label": 6}])
    assert labels_by_name(folder) == {f"train/{name}": 5}


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "..\\x.png"])
def test_metadata_that_lead_out_of_the_folder(name, tmp_path):
    folder = make_folder(tmp_path / "images", ["1.png"])
    picture().save(tmp_path / "x.png")
    write_lines(folder / "metadata.jsonl", [{"file_name": name}])
    with pytest.raises(InputError, match="leads out of the folder"):
        found(folder, follow_links=True)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]\n", b"\xff\xfe\x00", b'{"file_name": 3}\n'])
def test_damaged_metadata_are_refused_in_one_line(content, tmp_path):
    folder = make_folder(tmp_path / "images", ["1.png"])
    (folder / "metadata.jsonl").write_bytes(content)
    with pytest.raises(InputError, match="metadata.jsonl") as raised:
        found(folder)
    assert "\n" not in str(raised.value)


def test_a_table_called_metadata_is_a_table_where_there_are_no_images(tmp_path):
    make_table(tmp_path / "x" / "metadata.parquet", range(3))
    assert len(loaded(tmp_path / "x")) == 3
