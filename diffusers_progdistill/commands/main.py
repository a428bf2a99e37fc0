"""The `progdistill` command. Subcommands are imported when they are asked for: `--help` needs no torch."""

import importlib
import sys

from .. import __version__
from .parsing import run
from .terminal import lasting_output


COMMANDS = {
    "demo": "train a teacher of real handwritten digits and distil it to one step, in minutes on a CPU",
    "train-teacher": "train a diffusion model that can be distilled without further ado",
    "distill": "distil a teacher into students of half, a quarter, ... of its steps",
    "convert": "make a model of the canonical schedule out of any other",
    "push": "put the students of a chain on the Hub, or what is missing of them",
    "card": "write the model card of a chain",
    "evaluate": "measure models: distances to real images, precision and recall, agreement with the teacher",
    "sample": "generate images with a model and put them in one picture",
}


def usage() -> str:
    rows = "\n".join(f"  {name:<15}{what}" for name, what in COMMANDS.items())
    return (
        "usage: progdistill COMMAND [OPTIONS]\n\nProgressive distillation of diffusers models: few-step students of a"
        f" many-step teacher.\n\ncommands:\n{rows}\n\n`progdistill COMMAND --help` explains a command's options.\n"
        "exit status: 0 done, 1 failed during work, 2 refused before work, 3 trained but\nsomething is not on the Hub"
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    with lasting_output():
        if not argv or argv[0] in ("-h", "--help"):
            print(usage())
            return 0 if argv else 2
        if argv[0] == "--version":
            print(__version__)
            return 0
        if argv[0] not in COMMANDS:
            text = f"unknown command {argv[0]!r}; one of {', '.join(COMMANDS)}"
            print(f"progdistill: error: {text}", file=sys.stderr)
            return 2
        module = importlib.import_module(f".{argv[0].replace('-', '_')}", __package__)
        return run(lambda: module.main(argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
