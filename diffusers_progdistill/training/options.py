"""How an option is declared: a dataclass field with the help text that the command line shows."""

from dataclasses import field


def option(default, help: str, **metadata):
    """
    A dataclass field for the command line.

    Args:
        default (`Any`): The value if the option is not given.
        help (`str`): Its help text.
        metadata (*optional*): Further arguments of [`~argparse.ArgumentParser.add_argument`].

    Returns:
        [`~dataclasses.Field`]: The field.
    """
    return field(default=default, metadata={"help": help, **metadata})


def switch(help: str):
    """A truth value that can also be not given: `--name`, `--name false` and `--no_name` set it, else it is `None`."""
    return option(None, help, nargs="?", const=True)
