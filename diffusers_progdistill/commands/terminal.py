"""
Losing the terminal. A run outlives the window and the pipe that show its output: what cannot be shown any more is
dropped, and the work goes on. (`training/signals.py` has what the window sends when it closes.)
"""

import contextlib
import errno
import os
import sys


# A log on a full disk may get room again. Whatever else a write fails with, its reader is gone for good.
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR}


class LastingStream:
    """
    A text stream to which writing never fails.

    Args:
        stream (`io.TextIOBase`): What is written to, as long as it can be.
    """

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._try(self._stream.write, text)
        except UnicodeEncodeError:
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            self._try(self._stream.write, text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def _try(self, function, *arguments):
        try:
            function(*arguments)
        except UnicodeEncodeError:
            raise
        except OSError as error:
            if error.errno not in PASSING:
                self._point_nowhere()
        except ValueError:
            # It was closed.
            pass

    def _point_nowhere(self):
        """From here on everything that writes to this terminal or pipe, in whatever language, writes to nothing."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            own = self._stream.fileno()
            if own in (1, 2):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, own)
                os.close(nowhere)

    def close_quietly(self):
        """Write out what is left; what cannot be would make Python complain, and change the exit status."""
        with contextlib.suppress(ValueError):
            try:
                self._stream.flush()
            except OSError:
                self._point_nowhere()


def occupy_closed_files():
    """
    Give the standard files that the shell closed (`>&-`) to nothing. The first file that is opened would get their
    number, and a library that reports an error would write into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


@contextlib.contextmanager
def lasting_output():
    """Inside, `sys.stdout` and `sys.stderr` never raise; nested uses are one."""
    before = sys.stdout, sys.stderr
    if any(isinstance(stream, LastingStream) for stream in before):
        yield
        return
    occupy_closed_files()
    # Python has none where the file was closed.
    missing = [open(os.devnull, "w") for stream in before if stream is None]
    spare = iter(missing)
    lasting = [LastingStream(next(spare) if stream is None else stream) for stream in before]
    sys.stdout, sys.stderr = lasting
    try:
        yield
    finally:
        for stream in lasting:
            stream.close_quietly()
        sys.stdout, sys.stderr = before
        for stream in missing:
            stream.close()
