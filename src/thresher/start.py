"""How a command starts and is stopped, without a library that takes time to import."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

STOPPED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal."""


def start(module: str) -> None:
    """Run the ``main`` of a module; Ctrl-C while it and its libraries are imported ends it as later."""
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        stop()


def stop() -> NoReturn:
    """Leave Python after Ctrl-C, and say what is left to do."""
    sys.stderr.write("Stopped. The same command goes on from where it stopped.\n")
    sys.exit(STOPPED)
