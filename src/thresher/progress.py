"""How long the rest takes: a bar on a terminal or in a notebook, plain lines elsewhere, nothing where nobody looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from thresher.lines import plain
from thresher.terminal import PlainConsole, open_console

Advance = Callable[[int], None]


class Progress(Protocol):
    """Something that is told how a stage goes on."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """A stage of ``total`` steps; the value it gives is called with the number of steps just done."""
        ...


class Silent:
    """Tells nothing."""

    @contextmanager
    def stage(self, name: str, total: int) -> Generator[Advance]:
        """A stage nobody watches."""
        yield lambda steps: None


class Within:
    """Puts a larger stage's name before the name of every stage."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name

    def stage(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """A stage of the larger one."""
        return self._progress.stage(f"{self._name}: {name}", total)


class Shown:
    """Bars with the time left on a terminal, or in a notebook that has ipywidgets; else a line every ten seconds."""

    def __init__(self, console: PlainConsole) -> None:
        self._console = console

    @contextmanager
    def stage(self, name: str, total: int) -> Generator[Advance]:
        """Show one stage."""
        bars = self._console.is_terminal or (self._console.is_jupyter and find_spec("ipywidgets") is not None)
        show = self._bar if bars else self._lines
        with show(name, total) as advance:
            yield advance

    @contextmanager
    def _bar(self, name: str, total: int) -> Generator[Advance]:
        columns = (
            TextColumn("{task.description:<34}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self._console) as bars:
            task = bars.add_task(plain(name), total=total)
            yield lambda steps: bars.advance(task, steps)

    @contextmanager
    def _lines(self, name: str, total: int) -> Generator[Advance]:
        started = told = time.monotonic()
        done = 0

        def advance(steps: int) -> None:
            nonlocal done, told
            done += steps
            now = time.monotonic()
            if now - told >= 10 and done < total:
                left = (now - started) / done * (total - done)
                self._console.print(f"{name}: {done} of {total}, about {left:.0f} s left")
                told = now

        yield advance
        self._console.print(f"{name}: {total} done in {time.monotonic() - started:.0f} s")


def console_of_call(asked: bool | None) -> PlainConsole | None:
    """Where a call from Python shows its plan and progress: on standard error, or in the notebook's output.

    Args:
        asked: Whether to show anything; None where somebody looks, in a notebook or on a terminal.

    Returns:
        The console; None where nothing is shown.
    """
    console = open_console(stderr=True)
    watched = console.is_terminal or console.is_jupyter
    return console if (watched if asked is None else asked) else None


def byte_size(count: float) -> str:
    """How many bytes, as a person says it."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """``52 s``, ``12 min``, ``3.4 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
