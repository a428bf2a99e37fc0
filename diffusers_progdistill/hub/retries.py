"""Requests to the Hub: which failures pass, how often a call is tried again, and what a failure is called."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from ..errors import describe_reason


T = TypeVar("T")

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


def find_response(error: BaseException) -> Any:
    """The reply of the Hub that is behind an error, if one is."""
    responses = (getattr(cause, "response", None) for cause in list_causes(error))
    return next((response for response in responses if response is not None), None)


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: 429, 5xx and broken connections; never 401, 403 or 404."""
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if (response := find_response(error)) is not None:
        return response.status_code in TRANSIENT_STATUSES
    # By name, since the client's HTTP library is httpx in some of its versions and httpx2 in others.
    kinds = {kind.__name__ for cause in list_causes(error) for kind in type(cause).__mro__}
    broken = {"TransportError", "StreamError", "ConnectionError", "TimeoutError"}
    # The storage client raises plain RuntimeErrors of its own.
    return bool(kinds & broken) or isinstance(error, RuntimeError)


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
    function: Callable[[], T],
    log: Callable[[str], None] = print,
    retry_delays: tuple[float, ...] = RETRY_DELAYS,
    sleep: Callable[[float], bool | None] = time.sleep,
) -> T:
    """
    Call a function, which must be safe to call again, until it succeeds or fails for good. A `Retry-After` of the Hub
    makes a delay longer; when `sleep` returns `True`, there are no more attempts.
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
