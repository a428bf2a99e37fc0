"""Compares two files of `run.py`: the first line that differs of each run, and exit status 1 if there is one."""

import argparse
import json
import sys
from pathlib import Path


def describe_differences(before: dict, after: dict) -> list[str]:
    """One line for each model or run that is not the same."""
    lines = []
    for name in sorted(before["weights"].keys() | after["weights"].keys()):
        if before["weights"].get(name) != after["weights"].get(name):
            lines.append(f"weights of {name}: {before['weights'].get(name)} and {after['weights'].get(name)}")
    for name in sorted(before["metrics"].keys() | after["metrics"].keys()):
        rows = before["metrics"].get(name, []), after["metrics"].get(name, [])
        pairs = [*zip(*rows), (f"{len(rows[0])} lines", f"{len(rows[1])} lines")]
        lines += [f"metrics of {name}: {a} and {b}" for a, b in pairs if a != b][:1]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before"), parser.add_argument("after")
    args = parser.parse_args()
    before, after = (json.loads(Path(path).read_text()) for path in (args.before, args.after))
    differences = describe_differences(before, after)
    same = f"{len(before['weights'])} models and {len(before['metrics'])} runs are bit for bit the same"
    print("\n".join(differences) or same)
    return bool(differences)


if __name__ == "__main__":
    sys.exit(main())
