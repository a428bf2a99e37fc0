"""Which files of a folder are its images."""

import os
import re
import zipfile

import pytest
import torch
from helpers.image_folders import as_bytes, found, loaded, make_folder, make_table, names_found, picture

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.errors import InputError


# Words and places that `datasets` makes splits of, drops, or takes for something else.
NAMES = {
    "class folders": [f"{c}/{k}.png" for c in ("airplane", "bus", "train") for k in range(4)],
    "a class folder test": ["cat/1.png", "dog/1.png", "test/1.png"],
    "a class folder dev": ["dev/1.png", "ops/1.png"],
    "folders test and val": ["test/1.png", "val/1.png"],
    "train in a name": [*(f"cat {k}.png" for k in range(20)), *(f"toy train {k}.png" for k in range(5))],
    "val in all names": [f"ILSVRC2012_val_0000000{k}.png" for k in range(6)],
    "test-1": ["test-1.png", "train-1.png", "validation.png"],
    "a split of a class": ["trains/test track/1.png", "cars/race/1.png"],
    "odd characters": ["a#b.png", "what?.png", "50%.png", "über/été.png", "[1].png", "a*b.png", "x y.png", "{a}.png"],
    "upper case": ["A.PNG", "b.Png", "C.JPEG", "d.JPG"],
    "a folder called as a file": ["x.png/1.png", "2.png"],
    "a folder __x": ["__x/1.png", "_y/2.png", "3.png"],
    "dots": ["v1.0/a.b.c.png", "x..png"],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES.keys())
def test_every_image_of_a_folder_is_used(names, tmp_path):
    assert names_found(make_folder(tmp_path / "images", names)) == sorted(names)


FORMATS = ["png", "avif", "jp2", "tiff", "tif", "webp", "gif", "bmp", "ico", "tga", "ppm", "pcx", "jfif", "dds", "sgi"]


@pytest.mark.parametrize("ending", [*FORMATS, "AVIF", "Jpe", "qoi"])
def test_every_format_that_pillow_reads_counts(ending, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    size = (16, 16) if ending in ("ico",) else (8, 8)
    for number in range(3):
        picture(number, size=size).save(folder / f"{number}.{ending}")
    assert loaded(folder).all_images().shape == (3, 3, *size)


@pytest.mark.parametrize("name", ["noending", "photo.jpg_large", "7.0", "x.bak", "image.download"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"])
def test_an_image_without_a_known_ending_counts_by_its_content(name, kind, tmp_path):
    folder = make_folder(tmp_path / "images", ["a.png"])
    picture(1).save(folder / name, kind)
    assert len(names_found(folder)) == 2


@pytest.mark.parametrize(
    "ending, kind",
    [("heic", "HEIC"), ("jxl", "JPEG XL"), ("CR2", "camera RAW"), ("svg", "SVG"), ("psb", "PSB"), ("exr", "OpenEXR")],
)
def test_a_format_that_cannot_be_read_is_counted_and_named(ending, kind, tmp_path, caplog):
    folder = make_folder(tmp_path / "images", ["a.png"])
    for number in range(2):
        (folder / f"{number}.{ending}").write_bytes(b"II*\0 something else")
    assert names_found(folder) == ["a.png"]
    (line,) = caplog.messages
    assert f"2 {kind} files left out" in line and f"0.{ending}, 1.{ending}" in line
    (folder / "a.png").unlink()
    with pytest.raises(InputError, match=f"2 {kind}"):
        found(folder)


def test_what_other_programs_leave_behind_is_no_image(tmp_path, caplog):
    folder = make_folder(tmp_path / "images", ["a.png", "__MACOSX/b.png", "@eaDir/c.png"])
    for name in ("._a.png", "Thumbs.db", ".DS_Store", "desktop.ini", "README.md"):
        (folder / name).write_bytes(b"something")
    assert names_found(folder) == ["a.png"] and caplog.messages == []


@pytest.mark.parametrize("hidden", [".cache/x.png", ".ipynb_checkpoints/x.png", ".trash/a/x.png", ".x.png"])
def test_hidden_images_are_left_out_and_counted(hidden, tmp_path, caplog):
    folder = make_folder(tmp_path / ".hidden above" / "images", ["a.png", hidden])
    assert names_found(folder) == ["a.png"]
    assert "1 hidden image left out" in caplog.text and hidden in caplog.text


STRAY = ["features.parquet", ".cache/x.parquet", "sub/train-00000-of-00001.parquet", "train.parquet"]


@pytest.mark.parametrize("name", STRAY)
def test_images_win_over_a_stray_table(name, tmp_path, caplog):
    folder = make_folder(tmp_path / "images", [f"{k}.png" for k in range(6)])
    plain = loaded(folder).all_images()
    make_table(folder / name, [7, 8])
    assert torch.equal(loaded(folder).all_images(), plain)
    assert name.startswith(".") or "1 table not read, since there are images" in caplog.text


def test_tables_beside_images_are_named(tmp_path, caplog):
    folder = make_folder(tmp_path / "images", ["a.png"])
    for name in ("labels.csv", "captions.tsv", "rows.jsonl"):
        (folder / name).write_text("a,b\n")
    assert names_found(folder) == ["a.png"]
    assert "3 tables not read" in caplog.text and "labels.csv" in caplog.text


ARCHIVES = ["images.zip", "images.tar", "images.tar.gz", "images.7z", "images.rar", "part.tgz", "a.zst"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_to_be_unpacked(name, tmp_path, caplog):
    folder = tmp_path / "images"
    folder.mkdir()
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("a.png", as_bytes()["bytes"])
    for given in (folder, folder / name):
        with pytest.raises(InputError, match="--train_data_dir.*unpack the archive"):
            found(given)
    make_folder(folder, ["b.png"])
    assert names_found(folder) == ["b.png"]
    assert "1 archive not read" in caplog.text and name in caplog.text


EMPTY = {
    "nothing": ({}, "it is empty"),
    "a list": ({"a.csv": b"x", "b.jsonl": b"x"}, r"1 \.csv, 1 \.jsonl"),
    "text": ({"a.txt": b"x", "b.txt": b"x"}, r"2 \.txt"),
    "a script": ({"mydata.py": b"x"}, r"1 \.py"),
    "hidden": ({".a/x.png": b"x"}, "1 hidden"),
}


@pytest.mark.parametrize("files, said", EMPTY.values(), ids=EMPTY.keys())
@pytest.mark.parametrize("option", ["train_data_dir", "dataset_name"])
def test_a_folder_without_images_is_refused_in_one_line(files, said, option, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    options = [f"--{option}={folder}", f"--output_dir={tmp_path / 'run'}", "--report_to=none"]
    assert main(["train-teacher", *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert f"--{option}" in line and "holds no readable image" in line
    assert re.search(said, line), line


def test_what_is_no_folder_is_refused(tmp_path):
    picture().save(tmp_path / "a.png")
    for name, why in (("a.png", "is a file"), ("nowhere", "does not exist")):
        with pytest.raises(InputError, match=why):
            found(tmp_path / name)


@pytest.mark.parametrize("which", ["image", "folder", "relative", "chain"])
def test_a_link_out_of_the_folder_needs_an_option(which, tmp_path):
    folder, outside = make_folder(tmp_path / "images", ["a.png"]), make_folder(tmp_path / "outside", ["x.png"])
    if which == "image":
        (folder / "x.png").symlink_to(outside / "x.png")
    elif which == "folder":
        (folder / "sub").symlink_to(outside)
    elif which == "relative":
        (folder / "x.png").symlink_to("../outside/x.png")
    else:
        (tmp_path / "link").symlink_to(outside)
        (folder / "x.png").symlink_to(tmp_path / "link" / "x.png")
    with pytest.raises(InputError, match="leads out of the folder; give --follow_links"):
        found(folder)
    assert len(names_found(folder, follow_links=True)) == 2
    assert len(loaded(folder, follow_links=True)) == 2


@pytest.mark.parametrize("name", ["a.parquet", "metadata.jsonl", "metadata.csv", "data-00000-of-00001.arrow"])
def test_links_to_tables_are_treated_alike(name, tmp_path):
    folder = make_folder(tmp_path / "images", ["a.png"])
    (tmp_path / name).write_text("file_name\n")
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(InputError, match=f"{name} leads out of the folder; give --follow_links"):
        found(folder)


@pytest.mark.parametrize("follow", [False, True])
def test_links_within_the_folder_do_not_go_round_in_circles(follow, tmp_path, caplog):
    folder = make_folder(tmp_path / "images", ["a/1.png", "b/2.png"])
    (folder / "a" / "up").symlink_to(folder)
    (folder / "b" / "other").symlink_to(folder / "a")
    (folder / "self.png").symlink_to(folder / "self.png")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    assert names_found(folder, follow_links=follow) == ["a/1.png", "b/2.png"]
    assert "2 links to nothing" in caplog.text and "2 links to folders that are listed anyway" in caplog.text


@pytest.mark.parametrize("target", ["..", "/", "../..", "."])
def test_a_link_to_a_folder_above_brings_nothing_in(target, tmp_path, caplog):
    make_folder(tmp_path / "beside", ["x.png"])
    folder = make_folder(tmp_path / "images", ["a/1.png"])
    (folder / "a" / "up").symlink_to(target)
    (folder / "b").symlink_to(tmp_path / "beside")
    (tmp_path / "beside" / "back").symlink_to(folder)
    assert names_found(folder, follow_links=True) == ["a/1.png", "b/x.png"]
    assert "2 links to folders that are listed anyway" in caplog.text


def test_a_folder_that_two_links_lead_to_is_listed_once(tmp_path):
    outside, folder = (
        make_folder(tmp_path / "outside", ["x.png", "more/y.png"]),
        make_folder(tmp_path / "in", ["a.png"]),
    )
    (folder / "1").symlink_to(outside / "more")
    (folder / "2").symlink_to(outside)
    assert names_found(folder, follow_links=True) == ["1/y.png", "2/x.png", "a.png"]


def test_a_folder_that_is_itself_a_link_and_a_snapshot_of_the_hub(tmp_path):
    folder = make_folder(tmp_path / "images", ["a.png"])
    (tmp_path / "link").symlink_to(folder)
    assert names_found(tmp_path / "link") == ["a.png"]
    blobs = make_folder(tmp_path / "datasets--me--x" / "blobs", ["b.png"])
    (blobs / "b.png").rename(blobs / "0123")
    snapshot = tmp_path / "datasets--me--x" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "b.png").symlink_to("../../blobs/0123")
    assert names_found(snapshot) == ["b.png"]


def test_names_of_files_in_notices_stay_in_one_line(tmp_path, caplog):
    folder = make_folder(tmp_path / "images", ["a.png"])
    for name in (b"a\nb.heic", b"c\xff.heic", b"d\x1b[31m.svg", b"e\r.zip"):
        open(os.fsencode(folder) + b"/" + name, "wb").close()
    assert len(names_found(folder)) == 1 and len(caplog.messages) == 3
    for line in caplog.messages:
        assert line.isprintable() and line.encode()
    picture(1).save(open(os.fsencode(folder) + b"/\xfe.png", "wb"), "PNG")
    assert len(loaded(folder)) == 2
