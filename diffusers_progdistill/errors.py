"""The one exception that means: refused before any work was done."""


class InputError(ValueError):
    """Something a person gave is wrong. The message is one line that names the option and what would be right."""


class PublishError(RuntimeError):
    """Something that was promised is not on the Hub (exit status 3)."""
