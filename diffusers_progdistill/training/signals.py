"""SIGTERM, SIGINT and SIGHUP: finish the update, write a checkpoint, publish what there is time for, exit."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Never, Self

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from ..errors import StoppedBySignal


# Seconds from the signal to the end, for all that is to be saved; torchrun kills after 30.
GRACE = 20.0
# A terminal's Ctrl-C reaches the process from the launcher too: what comes this soon is the same signal.
SAME_SIGNAL = 1.0
# What a closing window sends; not on Windows.
HANGUP = getattr(signal, "SIGHUP", None)


class StopRequest:
    """
    `with StopRequest() as stop:` handles the signals until its end; SIGHUP, which a closing window sends, unless it is
    ignored, as under `nohup`. The first one raises [`StoppedBySignal`] at once where everything is on disk; inside
    `with stop.deferred():` it only sets `stop.requested`. A second one ends the process at once.
    """

    def __init__(self) -> None:
        self.signum, self.at, self._deferred, self._old = None, 0.0, False, {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handled = [signal.SIGTERM, signal.SIGINT]
            if HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN:
                handled.append(HANGUP)
            self._old = {signum: signal.signal(signum, self._on_signal) for signum in handled}
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._old.items():
            # One that was not set from Python is `None`, and cannot be put back.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    @property
    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self.signum is not None

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal is only noted."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def defer_rest(self) -> None:
        """From here on a signal is only noted: all is on disk, and what follows looks for it."""
        self._deferred = True

    def seconds_left(self) -> float | None:
        """Seconds of the grace period that are left; `None` when nobody asked to stop."""
        return max(0.0, GRACE - (time.monotonic() - self.at)) if self.requested else None

    def stop(self) -> Never:
        """Raise [`StoppedBySignal`]; for a process that agreed to stop because another one was asked to, too."""
        raise StoppedBySignal(self.signum or signal.SIGTERM)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.requested:
            # A window that closes may say so more than once.
            if now - self.at > SAME_SIGNAL and signum != HANGUP:
                os._exit(128 + signum)
            return
        self.signum, self.at = signum, now
        if not self._deferred:
            raise StoppedBySignal(signum)


def agree_to_stop(accelerator: Accelerator, stop: StopRequest) -> bool:
    """Whether one of the processes was asked to stop; called by all."""
    if accelerator.num_processes == 1:
        return stop.requested
    if stop.requested:
        accelerator.set_trigger()
    return accelerator.check_trigger()


class StopCheck:
    """
    When a stage looks whether it was asked to stop. One process looks after every update; several, which must wait for
    each other to look, do so after the same updates, some seconds and at `most` so many updates apart.
    """

    SECONDS = 4.0

    def __init__(
        self, accelerator: Accelerator, request: StopRequest | None, most: int, first_update: int = 0
    ) -> None:
        self.accelerator, self.request, self.most = accelerator, request or StopRequest(), most
        self.looked, self.next, self.at = first_update, first_update + 1, time.monotonic()

    def must_stop(self, update: int) -> bool:
        """Whether all processes stop after this many updates; called by all after every update."""
        if self.accelerator.num_processes > 1:
            if update < self.next:
                return False
            # The main process's clock decides for all when to look again.
            now = time.monotonic()
            pace = max((now - self.at) / (update - self.looked), 1e-6)
            interval = torch.tensor(min(self.most, max(1, int(self.SECONDS / pace))), device=self.accelerator.device)
            self.looked, self.next, self.at = update, update + int(broadcast(interval)), now
        return agree_to_stop(self.accelerator, self.request)
