"""A run whose output nobody can take any more goes on; one whose window closes stops with a checkpoint."""

import errno
import io
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.processes import chain_options, weights

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.commands.terminal import LastingStream, lasting_output
from diffusers_progdistill.errors import StoppedBySignal
from diffusers_progdistill.training.monitor import Monitor
from diffusers_progdistill.training.signals import StopRequest


class Lost(io.StringIO):
    """A stream that takes some characters, then fails as a pipe, a terminal or a disk does."""

    def __init__(self, error, room=0):
        super().__init__()
        self.error, self.room, self.failed = error, room, 0

    def write(self, text):
        self.room -= len(text)
        if self.room < 0:
            self.failed += 1
            raise self.error
        return super().write(text)

    def flush(self):
        if self.room < 0:
            raise self.error


WAYS = {
    "the reader ended": BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "the window closed": OSError(errno.EIO, "Input/output error"),
    "the disk of the log is full": OSError(errno.ENOSPC, "No space left on device"),
    "a quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "a share that is gone": OSError(errno.ESTALE, "Stale file handle"),
    "a slow reader that does not block": BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    "a closed file": OSError(errno.EBADF, "Bad file descriptor"),
    "a closed stream": ValueError("I/O operation on closed file"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_that_is_lost_takes_everything(way):
    for room in (0, 5):
        stream = LastingStream(Lost(WAYS[way], room))
        for _ in range(3):
            print("ab", file=stream, flush=True)
            stream.writelines(["c", "d"])
        stream.close_quietly()
        assert not stream.isatty() and stream.getvalue() == "ab\ncd"[:room]


def test_characters_that_a_terminal_does_not_have():
    raw = io.BytesIO()
    stream = LastingStream(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    print("Fréchet ━", file=stream)
    assert raw.getvalue() == b"Fr?chet ?\n"


@pytest.mark.parametrize("way", ["the reader ended", "the disk of the log is full"])
def test_a_chain_goes_on_and_ends_with_the_same_weights(way, teacher_folder, whole_chain, tmp_path, monkeypatch):
    lost = Lost(WAYS[way], 100), Lost(WAYS[way], 100)
    monkeypatch.setattr(sys, "stdout", lost[0])
    monkeypatch.setattr(sys, "stderr", lost[1])
    status = main(["distill", *chain_options(teacher_folder, tmp_path / "run")])
    monkeypatch.undo()
    assert status == 0 and any(stream.failed for stream in lost)
    assert weights(tmp_path / "run") == weights(whole_chain)


@pytest.mark.parametrize(
    "argv, status", [(["--help"], 0), (["--version"], 0), (["nope"], 2), (["sample"], 2), ([], 2)]
)
def test_small_commands(argv, status, monkeypatch):
    for error in WAYS.values():
        monkeypatch.setattr(sys, "stdout", Lost(error))
        monkeypatch.setattr(sys, "stderr", Lost(error))
        assert main(argv) == status


def test_no_streams_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with lasting_output(), lasting_output():
        sys.stdout.write("x")
        sys.stderr.flush()
        assert not sys.stderr.isatty()
    assert sys.stdout is None and sys.stderr is None
    assert main(["--help"]) == 0


def test_streams_are_given_back_whatever_happens():
    before = sys.stdout, sys.stderr
    with pytest.raises(RuntimeError), lasting_output():
        raise RuntimeError
    assert (sys.stdout, sys.stderr) == before


COMMANDS = """
run() { python -m diffusers_progdistill.commands.main "$@"; }
run --help 2>&1 | head -c 5; echo " ${PIPESTATUS[0]}"
run nope >&- 2>/dev/full; echo $?
"""


def test_small_commands_in_a_shell():
    """Real pipes: Python's own last flush must not complain either."""
    result = subprocess.run(["bash", "-c", COMMANDS], capture_output=True, text=True)
    assert result.stdout.split() == ["usage", "0", "2"] and result.stderr == ""


CLOSED = """
import os, sys
from diffusers_progdistill.commands.terminal import lasting_output
with lasting_output():
    file = open(sys.argv[1], "w")
    assert file.fileno() > 2, file.fileno()
    os.write(1, b"x"), os.write(2, b"x")
    print("x"), print("x", file=sys.stderr)
"""


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path):
    words = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "x", sys.executable, "-c", CLOSED, str(tmp_path / "checkpoint")]
    assert subprocess.run(words).returncode == 0
    assert (tmp_path / "checkpoint").read_bytes() == b""


@pytest.fixture
def open_window():
    """As in a terminal, whatever the tests were started with: under nohup the signal would be ignored."""
    old = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, old)


@pytest.mark.usefixtures("open_window")
def test_a_window_that_closes_stops_the_run_with_a_checkpoint(teacher_folder, whole_chain, tmp_path, monkeypatch):
    """The hang-up comes twice, as from a shell and its terminal."""
    real, count = Monitor.on_update, iter(range(1000))

    def hang_up(monitor):
        real(monitor)
        if next(count) == 3:
            os.kill(os.getpid(), signal.SIGHUP)
            monkeypatch.setattr("diffusers_progdistill.training.signals.SAME_SIGNAL", -1.0)
            os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(Monitor, "on_update", hang_up)
    options = chain_options(teacher_folder, tmp_path / "run", checkpointing_steps=1000)
    assert main(["distill", *options]) == 128 + signal.SIGHUP
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["steps-2-00000004"]
    monkeypatch.setattr(Monitor, "on_update", real)
    assert main(["distill", *options]) == 0
    assert weights(tmp_path / "run") == weights(whole_chain)


@pytest.mark.usefixtures("open_window")
def test_a_hang_up_that_is_ignored_stays_ignored():
    """As under nohup."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)
    with pytest.raises(StoppedBySignal), StopRequest():
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(1)
    assert signal.getsignal(signal.SIGHUP) == old


@pytest.mark.slow
def test_a_run_whose_reader_ends(teacher_folder, whole_chain, tmp_path):
    words = [sys.executable, "-m", "diffusers_progdistill.commands.main", "distill"]
    words += chain_options(teacher_folder, tmp_path / "run")
    script = '"$@" 2>&1 | head -c 100 > /dev/null; exit ${PIPESTATUS[0]}'
    assert subprocess.run(["bash", "-c", script, "x", *words]).returncode == 0
    assert weights(tmp_path / "run") == weights(whole_chain)
