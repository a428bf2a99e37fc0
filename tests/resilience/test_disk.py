"""A full disk: what could not be written is named, what was written before stays whole, and the run can go on."""

import os
import subprocess
import sys

import pytest
from processes import chain_options, command, logged, run, weights

from diffusers_progdistill.disk import replace_file, replace_folder, write_json
from diffusers_progdistill.errors import DiskError


# A process that may write only so many bytes to a file, as on a full disk: the error comes in the middle of a write.
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from diffusers_progdistill.commands.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def whole(teacher_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    status, output = run(command("distill", *chain_options(teacher_folder, folder)))
    assert status == 0, output
    return folder


@pytest.mark.slow
def test_files_that_cannot_grow(teacher_folder, whole, tmp_path):
    """Every size of limit hits another write: the record, the metrics, each file of a checkpoint, student, picture."""
    sizes = sorted({p.stat().st_size for p in whole.rglob("*") if p.is_file()})
    seen = set()
    for size in sizes[:: max(1, len(sizes) // 5)]:
        folder = tmp_path / f"limit-{size}"
        options = chain_options(teacher_folder, folder)
        limited = [sys.executable, "-c", LIMITED, str(max(size - 1, 1)), "distill", *options]
        status, output = run(limited)
        assert status in (0, 1), output
        assert "Traceback" not in output
        if status == 1:
            line = next(x for x in output.splitlines() if "could not be written" in x)
            seen.add(line.split("could not be written")[0].rsplit("/", 1)[-1])
        status, output = run(command("distill", *options))
        assert status == 0, output
        assert weights(folder) == weights(whole) and logged(folder) == logged(whole)
    assert len(seen) >= 2, seen


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(teacher_folder, tmp_path):
    tmp_path.chmod(0o500)
    status, output = run(command("distill", *chain_options(teacher_folder, tmp_path / "run")))
    assert status in (1, 2) and "could not be written" in output and "Traceback" not in output


def test_the_old_file_stays_when_the_new_one_fails(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match="a.json could not be written: No space left on device"):
        replace_file(tmp_path / "a.json", fail)
    assert '"old": 1' in (tmp_path / "a.json").read_text()
    replace_folder(tmp_path / "folder", lambda folder: (folder.mkdir(), (folder / "x").write_text("old")))
    with pytest.raises(DiskError, match="folder could not be written"):
        replace_folder(tmp_path / "folder", lambda folder: (folder.mkdir(), fail(folder / "x")))
    assert (tmp_path / "folder" / "x").read_text() == "old"


@pytest.mark.parametrize(
    "kilobytes", [300, *(pytest.param(k, marks=pytest.mark.slow) for k in (16, 64, 200, 450, 600))]
)
def test_a_full_file_system(teacher_folder, whole, tmp_path, kilobytes):
    """A file system that is too small, where one can be mounted: each size is full at another write."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        options = chain_options(teacher_folder, disk / "run")
        status, output = run(command("distill", *options))
        assert status == 1 and "could not be written: No space left on device" in output, output
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        status, output = run(command("distill", *options))
        assert status == 0, output
        assert weights(disk / "run") == weights(whole)
    finally:
        subprocess.run(["umount", str(disk)])
