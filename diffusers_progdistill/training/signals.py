"""SIGTERM, SIGINT and SIGHUP: finish the update, write a checkpoint, publish what there is time for, exit."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time

from ..errors import StoppedBySignal


# Seconds from the signal to the end, for all that is to be saved; torchrun kills after 30.
GRACE = 20.0
# A terminal's Ctrl-C reaches the process from the launcher too: what comes this soon is the same signal.
SAME_SIGNAL = 1.0


class StopRequest:
    """
    `with StopRequest() as stop:` handles the signals until its end; SIGHUP, which a closing window sends, unless it is
    ignored, as under `nohup`. The first one raises [`StoppedBySignal`] at once where everything is on disk; inside
    `with stop.deferred():` it only sets `stop.requested`. A second one ends the process at once.
    """

    def __init__(self):
        self.signum, self.at, self._deferred, self._old = None, 0.0, False, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._old = {s: signal.signal(s, self._on_signal) for s in handled_signals()}
            die_with_launcher()
        return self

    def __exit__(self, *exception):
        for signum, handler in self._old.items():
            # One that was not set from Python is `None`, and cannot be put back.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        if self._old:
            live_without_launcher()

    @property
    def requested(self) -> bool:
        return self.signum is not None

    @contextlib.contextmanager
    def deferred(self):
        """Inside, a signal is only noted."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def defer_rest(self):
        """From here on a signal is only noted: all is on disk, and what follows looks for it."""
        self._deferred = True

    def seconds_left(self) -> float | None:
        """Seconds of the grace period that are left; `None` when nobody asked to stop."""
        return max(0.0, GRACE - (time.monotonic() - self.at)) if self.requested else None

    def stop(self):
        """Raise [`StoppedBySignal`]; for a process that agreed to stop because another one was asked to, too."""
        raise StoppedBySignal(self.signum or signal.SIGTERM)

    def _on_signal(self, signum, frame):
        now = time.monotonic()
        if self.requested:
            # A window that closes may say so more than once.
            if now - self.at > SAME_SIGNAL and signum != getattr(signal, "SIGHUP", None):
                os._exit(128 + signum)
            return
        self.signum, self.at = signum, now
        if not self._deferred:
            raise StoppedBySignal(signum)


def handled_signals() -> list[int]:
    """What asks a run to stop."""
    hangup = getattr(signal, "SIGHUP", None)
    ignored = hangup is None or signal.getsignal(hangup) == signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if ignored else [hangup])]


def die_with_launcher():
    """
    `accelerate launch` with one process does not forward SIGTERM to its child; so the child asks Linux for one when
    its parent ends. Without a launcher the parent is a shell, which may end as it likes.
    """
    launched = any(name.startswith("ACCELERATE_") for name in os.environ)
    if launched:
        _ask_for_signal(signal.SIGTERM)


def live_without_launcher():
    """A process that goes on after a run, such as a notebook's, outlives its parent as before."""
    _ask_for_signal(0)


def _ask_for_signal(signum: int):
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signum)


def anybody_asked_to_stop(accelerator, stop: StopRequest) -> bool:
    """Whether one of the processes was asked to stop; called by all."""
    if accelerator.num_processes == 1:
        return stop.requested
    import torch

    flag = torch.tensor(float(stop.requested), device=accelerator.device)
    return accelerator.reduce(flag, "sum").item() > 0


class Agreement:
    """
    When several processes look whether one of them was asked to stop: at the same updates, at least every few seconds.

    With one process that is every update and costs nothing.
    """

    SECONDS = 4.0

    def __init__(self, accelerator, stop: StopRequest | None, most: int, first_update: int = 0):
        self.accelerator, self.request, self.most = accelerator, stop, most
        self.next, self.last = first_update + 1, first_update
        self.began = time.monotonic()

    def to_stop(self, update: int) -> bool:
        """Whether all processes stop after this many updates; called by all after every update."""
        if self.accelerator.num_processes == 1:
            return self.request is not None and self.request.requested
        if update < self.next:
            return False
        import torch

        # The main process's clock decides for all when to look again.
        now = time.monotonic()
        pace = (now - self.began) / (update - self.last)
        interval = min(self.most, max(1, int(self.SECONDS / max(pace, 1e-6)))) * self.accelerator.is_main_process
        asked = self.request is not None and self.request.requested
        mine = torch.tensor([float(asked), float(interval)], device=self.accelerator.device)
        asked, interval = self.accelerator.reduce(mine, "sum").tolist()
        self.began, self.last, self.next = now, update, update + int(interval)
        return asked > 0
