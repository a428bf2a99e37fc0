"""What ends a command, and with which exit status."""

import signal


class InputError(ValueError):
    """
    Something a person gave is wrong, found before any work was done (exit status 2). The message is one line that
    names the option and what would be right.
    """


class PublishError(RuntimeError):
    """Something that was promised is not on the Hub (exit status 3)."""


class DiskError(OSError):
    """Something could not be written: a full disk, a quota, a read-only folder (exit status 1)."""


def describe_reason(error: BaseException) -> str:
    """What an exception says, as one line, a short one if it is not of this package; its kind if it says nothing."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, InputError) else text[:200]) or type(error).__name__


class StoppedBySignal(BaseException):
    """The run was asked to stop. Not an `Exception`, so that nothing on the way takes it for a failure of its own."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
