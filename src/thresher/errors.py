"""What can go wrong by the user's hand. Every message says what, where, and what to do.

The command line prints the message as one sentence and exits with code 2; from Python they are ordinary
exceptions. Anything else that is raised is a fault of Thresher.
"""

from __future__ import annotations

from pathlib import Path
from traceback import format_exception

from thresher.lines import plain, plain_lines

LONGEST = 4000
"""Characters of a message; a file may have a million columns to be named."""


class ThresherError(Exception):
    """Base of every error that the user can mend. Its message is a plain line, whatever rows and names it quotes, and
    however many.
    """

    def __str__(self) -> str:
        said = plain(super().__str__())
        return said if len(said) <= LONGEST else f"{said[: LONGEST - 500]} ... {said[-495:]}"


def first_line(error: Exception) -> str:
    """What a library's error says, without its details."""
    return plain((str(error).strip().splitlines() or [type(error).__name__])[0])


def trace(error: BaseException) -> str:
    """How a fault came about, as Python tells it: lines of code, and messages on one line each."""
    parts = (part.strip("\n") for part in format_exception(error))
    return "\n".join(plain_lines(part) if part.startswith(" ") else plain(part) for part in parts)


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


class DamagedError(RunError):
    """A file of a run or study is not what was written there."""

    def __init__(self, file: Path, *, gone: bool = False) -> None:
        what = "is gone" if gone else "is damaged: it is not what was written there"
        super().__init__(f"{file}: {what}. The command that made it, run again, makes it anew where that can be done.")
        self.file = file
