"""The `progdistill` command. Subcommands are imported when they are asked for: `--help` needs no torch."""

import errno
import importlib
import sys
from collections.abc import Callable

from .. import __version__
from ..errors import DiskError, InputError, PublishError, StoppedBySignal
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

# What a disk, a share, the rights of a file or a limit of the system brings about; not a fault of the program.
OF_THE_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM),
    *(errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR),
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
    return run(lambda: run_command(argv))


def run_command(argv: list[str]) -> int:
    """What the words ask for."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    if argv[0] not in COMMANDS:
        raise InputError(f"unknown command {argv[0]!r}; one of {', '.join(COMMANDS)}")
    return importlib.import_module(f".{argv[0].replace('-', '_')}", __package__).main(argv[1:])


def run(function: Callable[[], int | None]) -> int:
    """Run a command and turn what it raises into an exit status, see `progdistill --help`."""
    with lasting_output():
        try:
            return function() or 0
        except InputError as error:
            return say(f"error: {error}", 2)
        except StoppedBySignal as error:
            return say(f"stopped by {error}; the same command goes on from here", 128 + error.signum)
        except PublishError as error:
            return say(str(error), 3)
        except KeyboardInterrupt:
            return say("interrupted", 130)
        except FloatingPointError as error:
            return say(f"stopped: {error}", 1)
        except DiskError as error:
            return say(f"stopped: {error}; what was finished before is whole", 1)
        except OSError as error:
            if error.errno not in OF_THE_SYSTEM:
                raise
            place = f"{error.filename}: " if error.filename else ""
            return say(f"stopped: {place}{error.strerror}", 1)


def say(text: str, status: int) -> int:
    """The last line of a command that did not get to its own, and the exit status."""
    print(f"progdistill: {' '.join(text.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
