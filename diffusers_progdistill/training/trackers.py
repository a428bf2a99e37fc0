"""
What the trackers of accelerate are given. Each is a service with rules of its own, so all get what the strictest
takes: plain numbers that are finite, plain names, and a step that is an integer and never decreases.
"""

import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import InputError, describe_reason


if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

# Words for none in the options of other programs.
NONE = ("none", "no", "off", "false")
# A tracker that fails so often in a row is not asked any more: each time may take minutes.
MOST_FAILURES = 5


def list_trackers(report_to: str | Iterable[str], token: str | None = None) -> list[str]:
    """The trackers that `--report_to` names, each once: one or several by commas, `all` installed ones, or `none`."""
    # Options are read without the libraries that training needs.
    from accelerate import tracking

    words = report_to.split(",") if isinstance(report_to, str) else report_to
    words = [str(word).strip().lower() for word in words]
    installed = [str(name) for name in tracking.get_available_trackers()]
    # Among them are a person's own, by accelerate's `register_tracker_class`.
    known = {str(name).lower(): str(name) for name in tracking.LOGGER_TYPE_TO_CLASS}
    for word in words:
        if word not in (*known, *NONE, "all"):
            names = ", ".join(sorted(known.values()))
            raise InputError(f"--report_to must be none, all, or some of {names}, not {word or 'empty'}")
    if any(word in NONE for word in words):
        if not all(word in NONE for word in words):
            raise InputError(f"--report_to {','.join(words)}: none goes with no other")
        return []
    names = [known[word] for word in words if word != "all"] + (installed if "all" in words else [])
    names = list(dict.fromkeys(names))
    if token is not None and (others := [name for name in names if name != "tensorboard"]):
        # Several of them log the command line.
        raise InputError(
            f"--hub_token with --report_to {','.join(others)} shows the token to the tracker: use `hf auth login` or"
            " HF_TOKEN"
        )
    for name in names:
        if name in tracking.LoggerType.list() and name not in installed:
            raise InputError(f"--report_to {name} is not installed: `pip install {name}`, or none")
    return names


def start_trackers(accelerator: "Accelerator", settings: dict) -> None:
    """Start the trackers of a run and give them its settings; one that does not start is refused."""
    try:
        accelerator.init_trackers("progdistill", config=simplify_settings(settings))
    except Exception as error:  # services raise many kinds
        names = ",".join(map(str, accelerator.log_with))
        raise InputError(
            f"--report_to {names} does not start: {describe_failure(error)}; mend that, or give none"
        ) from error


def finish_trackers(accelerator: "Accelerator") -> None:
    """Close the trackers. One that cannot be closed has lost rows of its own, and nothing of the run."""
    for tracker in accelerator.trackers:
        try:
            tracker.finish()
        except Exception as error:
            logger.warning("the tracker %s could not be closed: %s", tracker.name, describe_failure(error))
    accelerator.trackers = []


def simplify_settings(settings: dict) -> dict[str, str | int | float | bool]:
    """Settings as the simple types that trackers take; no tokens."""
    plain = {name: value for name, value in settings.items() if "token" not in name.lower()}
    return {name: value if is_plain(value) else str(value) for name, value in plain.items()}


def is_plain(value: object) -> bool:
    """Whether every tracker takes such a value."""
    return type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))


def select_numbers(values: dict) -> dict[str, int | float]:
    """Metrics as plain numbers; what is none, or not finite, is left out, since some services refuse the whole row."""
    numbers = {str(name): value.item() if hasattr(value, "item") else value for name, value in values.items()}
    return {name: value for name, value in numbers.items() if type(value) in (int, float) and math.isfinite(value)}


def describe_failure(error: Exception) -> str:
    """An exception of a service in one short line, with its kind."""
    return f"{type(error).__name__}: {describe_reason(error)}"


class Rows:
    """
    The rows of metrics that the trackers get. `metrics.jsonl` has all of them too, so that a tracker that fails costs
    one notice and never the run.
    """

    def __init__(self, accelerator: "Accelerator") -> None:
        self.accelerator, self.last_step = accelerator, 0
        # Failures in a row of those that have failed at all.
        self.failures: dict[str, int] = {}

    def add(self, values: dict, step: int) -> None:
        """Give every tracker one row."""
        self.last_step = step = max(int(step), self.last_step)
        values = select_numbers(values)
        for tracker in self.accelerator.trackers if values else []:
            failures = self.failures.get(tracker.name, 0)
            if failures >= MOST_FAILURES:
                continue
            try:
                tracker.log(dict(values), step=step)
            except Exception as error:  # the network, a quota, a disk
                if tracker.name not in self.failures:
                    logger.warning(
                        "the tracker %s did not take a row (%s): the run goes on, and metrics.jsonl holds every row",
                        *(tracker.name, describe_failure(error)),
                    )
                self.failures[tracker.name] = failures + 1
            else:
                if failures:
                    self.failures[tracker.name] = 0
