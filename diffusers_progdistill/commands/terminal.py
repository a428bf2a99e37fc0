"""
Losing the terminal. A run outlives the window and the pipe that show its output: what cannot be shown any more is
dropped, and the work goes on. (`training/signals.py` has what the window sends when it closes.)
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO


# A log on a full disk may get room again. Whatever else a write fails with, its reader is gone for good.
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR}


class LastingStream:
    """A text stream to which writing never fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with self._dropping(PASSING):
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._dropping(PASSING):
            self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def close_quietly(self) -> None:
        """Write out what is left; what cannot be would make Python complain, and change the exit status."""
        with self._dropping(set()):
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self, passing: set[int]) -> Iterator[None]:
        """Drop what cannot be written. Unless that may pass, everything from here on goes to nothing."""
        try:
            # A stream that was closed raises the latter.
            with contextlib.suppress(ValueError):
                yield
        except OSError as error:
            if error.errno not in passing:
                # Under its number, so that libraries of whatever language write to nothing too.
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    if (number := self._stream.fileno()) in (1, 2):
                        point_nowhere(number)


def point_nowhere(number: int) -> None:
    """Give the number of a standard file to nothing."""
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)


def occupy_closed_files() -> None:
    """Give the standard files that the shell closed (`>&-`) to nothing."""
    # The first file that is opened would get their number, and a library that reports an error would write into it.
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            point_nowhere(number)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Inside, `sys.stdout` and `sys.stderr` never raise; nested uses are one."""
    before = sys.stdout, sys.stderr
    if any(isinstance(stream, LastingStream) for stream in before):
        yield
        return
    occupy_closed_files()
    with contextlib.ExitStack() as opened:
        # Python has no stream where the file was closed.
        streams = [opened.enter_context(open(os.devnull, "w")) if one is None else one for one in before]
        sys.stdout, sys.stderr = lasting = [LastingStream(stream) for stream in streams]
        try:
            yield
        finally:
            for stream in lasting:
                stream.close_quietly()
            sys.stdout, sys.stderr = before
