"""A command called in this process, as a shell would call it: how it ended, what it said, and how long that took."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

SLOW = 30.0
"""Seconds from which on a command without a word counts as hanging."""


@dataclass(frozen=True)
class Ended:
    """How a command ended; ``raised`` is what no command may let through."""

    code: object
    errors: str
    seconds: float
    raised: str | None = None

    @property
    def refused(self) -> bool:
        """Whether it was one sentence about a mistake of the user's."""
        said = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        return self.code == 2 and len(said) == 1 and self.raised is None

    @property
    def fault(self) -> bool:
        """Whether it ended in what nobody foresaw."""
        return self.raised is not None or self.code not in (0, 1, 2) or "Traceback" in self.errors


def call(main: Callable[[], None], arguments: Sequence[str]) -> Ended:
    """Call the ``main`` of a command. Handlers of log records are put back, for other tests read theirs."""
    root, factory = logging.getLogger(), logging.getLogRecordFactory()
    handlers, said = root.handlers[:], io.StringIO()
    started, code, raised = time.monotonic(), None, None
    try:
        with patch.object(sys, "argv", ["thresher", *arguments]), redirect_stdout(io.StringIO()), redirect_stderr(said):
            main()
    except SystemExit as ended:
        code = ended.code
    except BaseException as error:  # which is the point
        raised = repr(error)
    finally:
        root.handlers[:] = handlers
        logging.setLogRecordFactory(factory)
        logging.captureWarnings(False)
    return Ended(code, said.getvalue(), time.monotonic() - started, raised)
