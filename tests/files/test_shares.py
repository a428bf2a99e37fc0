"""File systems that lack an operation: what only protects data is done without, what holds data stays an error."""

import errno
import fcntl
import logging
import os
import shutil
import stat

import pytest
import torch
from PIL import Image

from diffusers_progdistill import disk
from diffusers_progdistill.commands.main import main, run
from diffusers_progdistill.disk import flush, flush_tree, replace_file, replace_folder, write_json
from diffusers_progdistill.errors import DiskError, InputError
from diffusers_progdistill.evaluation.cache import cached
from diffusers_progdistill.record import only_process_in


MISSING = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF, errno.ENOSYS, errno.EISDIR)
FAILED = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(disk, "_said", set())


def refusing(number, applies=lambda *args: True, real=None):
    """A system call that fails for some arguments."""

    def call(*args, **kwargs):
        if applies(*args):
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    return call


def is_folder(handle, *rest):
    return stat.S_ISDIR(os.fstat(handle).st_mode)


def fill(folder):
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights").write_text("new")
    (folder / "model_index.json").write_text("{}")


@pytest.mark.parametrize("number", MISSING)
@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_folder_that_cannot_be_flushed(number, call, tmp_path, monkeypatch, caplog):
    applies = is_folder if call == "fsync" else lambda path, *rest: os.path.isdir(path)
    with monkeypatch.context() as patch:
        # What reads folders asks for them by another flag.
        real = getattr(os, call)
        patch.setattr(
            disk.os, call, refusing(number, lambda *a: applies(*a) and (call == "fsync" or a[1:] == (0,)), real)
        )
        for name in ("a", "b"):
            replace_folder(tmp_path / name, fill)
        write_json(tmp_path / "a.json", {})
    assert (tmp_path / "b" / "unet" / "weights").read_text() == "new"
    notices = [r.getMessage() for r in caplog.records if r.name.startswith("diffusers_progdistill")]
    assert len(notices) == 1 and "cannot flush folders" in notices[0] and "\n" not in notices[0]


@pytest.mark.parametrize("number", (*MISSING, *FAILED))
def test_a_file_that_cannot_be_flushed_is_an_error(number, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")
    write_json(tmp_path / "x.json", {"old": 1})
    monkeypatch.setattr(os, "fsync", refusing(number, lambda *a: not is_folder(*a), os.fsync))
    with pytest.raises(DiskError, match=os.strerror(number)):
        replace_folder(tmp_path / "a", fill)
    with pytest.raises(DiskError, match=os.strerror(number)):
        write_json(tmp_path / "x.json", {"new": 1})
    assert (tmp_path / "a" / "old").read_text() == "old" and "old" in (tmp_path / "x.json").read_text()


@pytest.mark.parametrize("number", FAILED)
def test_a_folder_whose_flush_fails_is_an_error(number, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(number, is_folder, os.fsync))
    with pytest.raises(OSError, match=os.strerror(number)):
        flush(tmp_path)
    with pytest.raises(OSError, match=os.strerror(number)):
        flush_tree(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL])
@pytest.mark.parametrize("resumed", [False, True])
def test_locks_that_are_not_there(number, resumed, tmp_path, monkeypatch, caplog):
    if resumed:
        with only_process_in(tmp_path / "run"):
            pass
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    for _ in range(2):
        with only_process_in(tmp_path / "run"):
            (tmp_path / "run" / "x").write_text("")
    assert ["has no locks" in r.getMessage() for r in caplog.records] == [True]


def test_a_lock_that_is_held_still_refuses(tmp_path):
    with only_process_in(tmp_path), pytest.raises(InputError, match="in use by another process"):
        handle = os.open(tmp_path / ".lock", os.O_RDWR)
        try:
            with only_process_in(tmp_path):
                pass
        finally:
            os.close(handle)


def test_a_lock_whose_file_cannot_be_made_is_an_error(tmp_path, monkeypatch):
    real = os.open
    monkeypatch.setattr(os, "open", refusing(errno.EACCES, lambda path, *rest: str(path).endswith(".lock"), real))
    with pytest.raises(DiskError, match="Permission denied"), only_process_in(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EBUSY, errno.ENOSYS])
@pytest.mark.parametrize("is_there", [False, True])
def test_names_that_cannot_be_changed(number, is_there, tmp_path, monkeypatch, caplog):
    """Mounts of object stores, files that a container mounts, layers of its image."""
    if is_there:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "left").write_text("old")
        (tmp_path / "x.json").write_text("old")
    monkeypatch.setattr(os, "replace", refusing(number))
    replace_folder(tmp_path / "run", fill)
    replace_file(tmp_path / "x.json", lambda temporary: temporary.write_text("new"))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["model_index.json", "run", "unet", "weights", "x.json"]
    assert (tmp_path / "run" / "unet" / "weights").read_text() == (tmp_path / "x.json").read_text() == "new"
    assert ["cannot rename" in r.getMessage() for r in caplog.records] == [True]


def test_files_of_the_old_folder_that_are_still_open(tmp_path, monkeypatch):
    """NFS keeps them under another name in their folder, which then cannot be removed."""
    replace_folder(tmp_path / "run", lambda folder: (folder.mkdir(), (folder / "old").write_text("")))
    monkeypatch.setattr(
        shutil, "rmtree", lambda path, ignore_errors=False: ignore_errors or refusing(errno.ENOTEMPTY)()
    )
    replace_folder(tmp_path / "run", fill)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["model_index.json", "unet"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_put_in_its_place(tmp_path, monkeypatch):
    replace_folder(tmp_path / "run", lambda folder: (folder.mkdir(), (folder / "old").write_text("")))
    real = os.replace
    failing = refusing(errno.EIO, lambda source, target: str(source).endswith(".run.tmp"), real)
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(DiskError):
        replace_folder(tmp_path / "run", fill)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["old"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_cache_that_cannot_be_written(number, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("diffusers_progdistill.evaluation.cache.save_file", refusing(number))
    for value in (1, 2):
        made = cached("a", lambda value=value: {"x": torch.full((2,), value)}, str(tmp_path / "cache"))
        assert made["x"].tolist() == [value, value]
    assert ["nothing is kept in the cache" in r.getMessage() for r in caplog.records] == [True]


def test_a_cache_without_a_home(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffusers_progdistill.evaluation.cache.HF_HOME", "~/.cache/huggingface")
    assert cached("a", lambda: {"x": torch.ones(2)})["x"].tolist() == [1, 1]
    assert not list(tmp_path.iterdir()) and "no home folder" in caplog.text


def test_a_cache_below_a_file(tmp_path, caplog):
    (tmp_path / "home").write_text("")
    with caplog.at_level(logging.WARNING):
        cached("a", lambda: {"x": torch.ones(2)}, str(tmp_path / "home" / "cache"))
    assert "nothing is kept" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_picture_that_cannot_be_written_is_one_line(number, whole_chain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Image.Image, "save", refusing(number))
    options = ["--num_images=1", "--output", str(tmp_path / "a.png")]
    assert main(["sample", str(whole_chain / "steps-1"), *options]) == 1
    error = capsys.readouterr().err
    # Above it is the bar of the sampling.
    assert f"a.png could not be written: {os.strerror(number)}" in error.splitlines()[-1] and "Trace" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number, status", [(errno.ENOSPC, 1), (errno.EMFILE, 1), (errno.EACCES, 1)])
def test_what_the_system_refuses_anywhere_is_one_line(number, status, capsys):
    def work():
        raise OSError(number, os.strerror(number), "some/file")

    assert run(work) == status
    assert capsys.readouterr().err == f"progdistill: stopped: some/file: {os.strerror(number)}\n"


@pytest.mark.parametrize("error", [OSError("of a library"), ConnectionError("no"), FileNotFoundError(2, "ours")])
def test_other_faults_are_not_hidden(error):
    def work():
        raise error

    with pytest.raises(type(error)):
        run(work)


def test_a_card_of_a_person_is_kept_where_nothing_can_be_renamed(whole_chain, tmp_path, monkeypatch):
    folder = shutil.copytree(whole_chain, tmp_path / "run")
    (folder / "README.md").write_text("mine")
    monkeypatch.setattr(os, "replace", refusing(errno.EPERM))
    assert main(["card", str(folder)]) == 0
    assert (folder / "README.1.md").read_text() == "mine" and "progressive" in (folder / "README.md").read_text()
