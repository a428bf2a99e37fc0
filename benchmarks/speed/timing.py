"""Times of several sides that do the same work, taken in turns so that a busy moment meets all of them."""

import statistics
import time
from collections.abc import Callable


def interleaved(sides: dict[str, Callable[[], object]], repeats: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Seconds of every call of every side."""
    times = {name: [] for name in sides}
    for repeat in range(warm_up + repeats):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            if repeat >= warm_up:
                times[name].append(time.perf_counter() - began)
    return times


def row(name: str, times: dict[str, list[float]], base: str, unit: str = "ms") -> list[dict]:
    """
    Lines of the table: the median and quartiles of each side, and the median of its ratio to `base` turn by turn,
    which a machine whose speed drifts does not move.
    """
    scale, lines = {"s": 1, "ms": 1e3, "us": 1e6}[unit], []
    for side, seconds in times.items():
        quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
        ratios = [a / b for a, b in zip(seconds, times[base])]
        lines.append(
            {
                "row": name,
                "side": side,
                "median": statistics.median(seconds) * scale,
                "quartiles": [quartiles[0] * scale, quartiles[2] * scale],
                "unit": unit,
                "ratio": statistics.median(ratios),
                "base": base,
                "repeats": len(seconds),
            }
        )
    return lines


def table(lines: list[dict]) -> str:
    """The lines as text."""
    text = [f"{'row':<44}{'side':<24}{'median':>10}  {'quartiles':<20}{'ratio':>7}  of"]
    for line in lines:
        low, high = line["quartiles"]
        spread = f"[{low:.4g}, {high:.4g}] {line['unit']}"
        figures = f"{line['median']:>10.4g}  {spread:<20}{line['ratio']:>7.3f}"
        text.append(f"{line['row']:<44}{line['side']:<24}{figures}  {line['base']}")
    return "\n".join(text)
