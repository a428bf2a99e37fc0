"""
What the trackers of accelerate are given. Each is a service with rules of its own, so all get what the strictest
takes: plain numbers that are finite, plain names, and a step that is an integer and never decreases.
"""

import logging
import math
import sys
from collections.abc import Iterable
from importlib.util import find_spec

from ..errors import InputError, describe_reason


logger = logging.getLogger(__name__)

# The trackers of accelerate, with the packages of which one must be there.
PACKAGES = {
    "aim": ("aim",),
    "clearml": ("clearml",),
    "comet_ml": ("comet_ml",),
    "dvclive": ("dvclive",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
OTHER_NAMES = {
    "comet": "comet_ml",
    "dvc": "dvclive",
    "tensorboardx": "tensorboard",
    "no": "none",
    "off": "none",
    "false": "none",
}
# A tracker that fails so often in a row is not asked any more: each time may take minutes.
MOST_FAILURES = 5


def tracker_names(report_to: str | Iterable[str], token: str | None = None) -> list[str]:
    """
    The trackers that `--report_to` names, each once: one or several by commas, `all` that are installed, or `none`.

    Raises:
        [`InputError`]: If a name is unknown, its package is not installed, or it would be shown the token.
    """
    words = report_to.split(",") if isinstance(report_to, str) else [str(word) for word in report_to]
    own = _registered()
    names = [word.strip() if word.strip() in own else _usual(word) for word in words]
    known = sorted({*PACKAGES, *own})
    for name in names:
        if name not in (*known, "all", "none"):
            raise InputError(f"--report_to must be none, all, or some of {', '.join(known)}, not {name or 'empty'}")
    if "none" in names:
        if len(set(names)) > 1:
            raise InputError(f"--report_to {','.join(names)}: none goes with no other")
        return []
    if "all" in names:
        names = [name for name in names if name != "all"] + [name for name in PACKAGES if _is_installed(name)]
    names = list(dict.fromkeys(names))
    if token is not None and (others := [name for name in names if name != "tensorboard"]):
        # Several of them log the command line.
        raise InputError(
            f"--hub_token with --report_to {','.join(others)} shows the token to the tracker: use `hf auth login` or"
            " HF_TOKEN"
        )
    for name in names:
        if name not in own and not _is_installed(name):
            raise InputError(f"--report_to {name} is not installed: `pip install {PACKAGES[name][0]}`, or none")
    return names


def _usual(word: str) -> str:
    name = word.strip().lower().replace("-", "_")
    return OTHER_NAMES.get(name, name)


def _registered() -> list[str]:
    """Trackers of a person's own, by accelerate's `register_tracker_class`."""
    module = sys.modules.get("accelerate.tracking")
    classes = getattr(module, "LOGGER_TYPE_TO_CLASS", {})
    return [str(name) for name in classes if str(name) not in PACKAGES]


def _is_installed(name: str) -> bool:
    # A folder of that name, such as the logs of an earlier run, is found as well, but has no loader.
    specs = [find_spec(package) for package in PACKAGES[name]]
    return any(spec is not None and spec.loader is not None for spec in specs)


def start_trackers(accelerator, settings: dict):
    """
    Start the trackers of a run and give them its settings.

    Raises:
        [`InputError`]: If one does not start, such as for want of a login: nothing has been trained yet.
    """
    asked, started = list(accelerator.log_with or []), []
    for one in asked:
        accelerator.log_with, accelerator.trackers = [one], []
        try:
            accelerator.init_trackers("progdistill", config=plain_settings(settings))
        except Exception as error:  # services raise many kinds
            raise InputError(
                f"--report_to {one} does not start: {name_failure(error)}; mend that, or give none"
            ) from error
        started += accelerator.trackers
    accelerator.log_with, accelerator.trackers = asked, started


def check_accepted(accelerator, names: list[str]):
    """Refuse trackers that accelerate has dropped without a word, as it does with packages that it finds too old."""
    kept = [str(one) for one in accelerator.log_with or []]
    if lost := [name for name in names if name not in kept]:
        raise InputError(
            f"--report_to {','.join(lost)}: accelerate cannot use the installed package; update it, or none"
        )


def finish_trackers(accelerator):
    """Close the trackers. One that cannot be closed has lost rows of its own, and nothing of the run."""
    for tracker in accelerator.trackers:
        try:
            tracker.finish()
        except Exception as error:
            logger.warning("the tracker %s could not be closed: %s", tracker.name, name_failure(error))
    accelerator.trackers = []


def plain_settings(settings: dict, prefix: str = "") -> dict[str, str | int | float | bool]:
    """Settings as the simple types that trackers take, nested ones under dotted names; no tokens."""
    plain = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if "token" in name.lower():
            continue
        if isinstance(value, dict):
            plain |= plain_settings(value, f"{name}.")
        elif isinstance(value, (list, tuple, set)):
            plain[name] = ", ".join(map(str, value))
        elif type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
            plain[name] = value
        else:
            plain[name] = str(value)
    return plain


def plain_numbers(values: dict) -> dict[str, int | float]:
    """Metrics as plain numbers; what is none, or not finite, is left out, since some services refuse the whole row."""
    plain = {}
    for name, value in values.items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if math.isfinite(value):
            plain[str(name)] = value
    return plain


def name_failure(error: Exception) -> str:
    """An exception of a service in one short line, with its kind."""
    return f"{type(error).__name__}: {describe_reason(error)}"


class Rows:
    """
    The rows of metrics that the trackers get. `metrics.jsonl` has all of them too, so that a tracker that fails costs
    one notice and never the run.

    Args:
        accelerator ([`~accelerate.Accelerator`]): Its trackers, when they are started.
    """

    def __init__(self, accelerator):
        self.accelerator, self.last_step = accelerator, 0
        self.failures: dict[str, int] = {}
        self.said: set[str] = set()

    def add(self, values: dict, step: int):
        """Give every tracker one row."""
        self.last_step = step = max(int(step), self.last_step)
        values = plain_numbers(values)
        for tracker in self.accelerator.trackers if values else []:
            if self.failures.get(tracker.name, 0) >= MOST_FAILURES:
                continue
            try:
                tracker.log(dict(values), step=step)
                self.failures[tracker.name] = 0
            except Exception as error:  # the network, a quota, a disk
                self._note(tracker.name, error)

    def _note(self, name: str, error: Exception):
        self.failures[name] = self.failures.get(name, 0) + 1
        if name not in self.said:
            self.said.add(name)
            logger.warning(
                "the tracker %s did not take a row (%s): the run goes on, and metrics.jsonl holds every row",
                *(name, name_failure(error)),
            )
