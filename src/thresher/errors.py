"""What can go wrong by the user's hand. Every message says what, where, and what to do.

The command line prints the message as one sentence and exits with code 2; from Python they are ordinary
exceptions. Anything else that is raised is a fault of Thresher.
"""


class ThresherError(Exception):
    """Base of every error that the user can mend."""


def first_line(error: Exception) -> str:
    """What a library's error says, without its details."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class ConfigError(ThresherError):
    """An option is missing, unknown or contradicts another."""


class DataError(ThresherError):
    """A file, column, row or label is not what was said."""


class ModelError(ThresherError):
    """A model, tokenizer or adapter cannot be used as it is."""


class GradientError(ThresherError):
    """A row's loss or gradient is not a finite number."""


class DivergedError(ModelError):
    """A training's loss is no longer finite."""


class RunError(ThresherError):
    """A run directory belongs to other arguments, or is not finished."""
