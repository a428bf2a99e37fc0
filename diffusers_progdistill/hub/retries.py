"""Requests to the Hub: which failures pass, how often a call is tried again, and what a failure is called."""

import time
from collections.abc import Callable, Iterator

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from ..errors import describe_reason


# Seconds between attempts; about four minutes in all. The client's own retries come on top, but it makes none for
# commits with large files nor for tags.
RETRY_DELAYS = (1, 2, 4, 8, 16, 32, 60, 60, 60)
# The Hub may ask for longer delays; this much is granted.
LONGEST_DELAY = 300.0
TRANSIENT_STATUSES = {408, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524}


def list_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came from: the client wraps what happens to an upload in a `RuntimeError`."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def find_response(error: BaseException):
    """The reply of the Hub that is behind an error, if one is."""
    responses = (getattr(cause, "response", None) for cause in list_causes(error))
    return next((response for response in responses if response is not None), None)


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: 429, 5xx and broken connections; never 401, 403 or 404."""
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if (response := find_response(error)) is not None:
        return response.status_code in TRANSIENT_STATUSES
    for cause in list_causes(error):
        # By name, since the client's HTTP library is httpx in some of its versions and httpx2 in others.
        if any(c.__name__ in ("TransportError", "StreamError") for c in type(cause).__mro__):
            return True
        if isinstance(cause, (ConnectionError, TimeoutError)):
            return True
    # The storage client raises plain RuntimeErrors of its own.
    return isinstance(error, RuntimeError)


def describe(error: BaseException) -> str:
    """An error in one line, without the addresses and identifiers that the client adds to it."""
    causes = list(list_causes(error))
    answered = next((cause for cause in causes if getattr(cause, "response", None) is not None), None)
    if isinstance(answered, HfHubHTTPError):
        message = answered.server_message or str(answered).split("\n")[0]
        return f"{answered.response.status_code}, {' '.join(message.split())}"
    root = answered or causes[-1]
    return f"{type(root).__name__}: {describe_reason(root)}"


def retry(
    function: Callable,
    log: Callable[[str], None] = print,
    retry_delays: tuple[float, ...] = RETRY_DELAYS,
    sleep: Callable[[float], bool | None] = time.sleep,
):
    """
    Call a function until it succeeds or fails for good, at most `len(retry_delays) + 1` times.

    Args:
        function (`Callable`): Takes no arguments; it must be safe to call again.
        log (`Callable`): Is told in one line about each failure that is tried again.
        retry_delays (`tuple[float, ...]`): Seconds between attempts; a longer `Retry-After` of the Hub is respected.
        sleep (`Callable`): Waits that many seconds; if it returns `True`, there are no more attempts.
    """
    for delay in (*retry_delays, None):
        try:
            return function()
        except Exception as error:
            if delay is None or not is_transient(error):
                raise
            asked = getattr(find_response(error), "headers", {}).get("Retry-After", "")
            delay = max(delay, min(float(asked), LONGEST_DELAY) if asked.isdigit() else 0.0)
            log(f"the Hub: {describe(error)}; trying again in {delay:.0f} s")
            if sleep(delay):
                raise
