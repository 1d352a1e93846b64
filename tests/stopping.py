"""A person who presses Ctrl-C in the middle of a stage."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from thresher.progress import Advance


class Stopping:
    """Progress that interrupts the stage ``name`` as soon as it is told of more than ``after`` steps."""

    def __init__(self, name: str, after: int) -> None:
        self._name, self._after = name, after

    @contextmanager
    def stage(self, name: str, total: int) -> Generator[Advance]:
        """Count the steps of one stage."""
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if name == self._name and done > self._after:
                raise KeyboardInterrupt

        yield advance
