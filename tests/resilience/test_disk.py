"""A full disk: what could not be written is named, what was written before stays whole, and the run can go on."""

import os
import subprocess
import sys

import pytest
from helpers.processes import chain_options, command, logged, run, weights

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.disk import replace_file, replace_folder, write_json
from diffusers_progdistill.errors import DiskError


MAY_MOUNT = sys.platform == "linux" and os.getuid() == 0
# A process that may write only so many bytes to a file, as on a full disk: the error comes in the middle of a write.
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from diffusers_progdistill.commands.main import main
sys.exit(main(sys.argv[2:]))
"""


def distill_limited(teacher_folder, whole_chain, folder, size):
    """A run whose files may not reach this size, then one without a limit; what could not be written, if anything."""
    options = chain_options(teacher_folder, folder)
    status, output = run(["-c", LIMITED, str(max(size - 1, 1)), "distill", *options])
    assert status in (0, 1), output
    assert "Traceback" not in output
    lines = [x for x in output.splitlines() if "could not be written" in x]
    assert len(lines) == status
    assert main(["distill", *options]) == 0
    assert weights(folder) == weights(whole_chain) and logged(folder) == logged(whole_chain)
    return lines[0].split("could not be written")[0].rsplit("/", 1)[-1] if lines else None


def test_a_file_that_cannot_grow(teacher_folder, whole_chain, tmp_path):
    size = max(p.stat().st_size for p in whole_chain.glob("steps-*/unet/*"))
    assert distill_limited(teacher_folder, whole_chain, tmp_path / "run", size)


@pytest.mark.slow
def test_files_that_cannot_grow(teacher_folder, whole_chain, tmp_path):
    """Every size of limit hits another write: the record, the metrics, each file of a checkpoint, student, picture."""
    sizes = sorted({p.stat().st_size for p in whole_chain.rglob("*") if p.is_file()})
    sizes = sizes[:: max(1, len(sizes) // 5)]
    seen = {distill_limited(teacher_folder, whole_chain, tmp_path / f"limit-{size}", size) for size in sizes}
    assert len(seen - {None}) >= 2, seen


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


# Each size is full at another write; where nothing can be mounted, the limits above are the test.
SIZES = [150, *(pytest.param(k, marks=pytest.mark.slow) for k in (16, 64, 100, 200, 250))]


@pytest.mark.skipif(not MAY_MOUNT, reason="mounting a small file system takes root on Linux")
@pytest.mark.parametrize("kilobytes", SIZES)
def test_a_full_file_system(teacher_folder, whole_chain, tmp_path, kilobytes):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("root has no right to mount here")
    try:
        options = chain_options(teacher_folder, disk / "run")
        status, output = run(command("distill", *options))
        assert status == 1 and "could not be written: No space left on device" in output, output
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert main(["distill", *options]) == 0
        assert weights(disk / "run") == weights(whole_chain)
    finally:
        subprocess.run(["umount", str(disk)])
