"""Where a study's independent jobs run: here, in processes of this machine, on a Slurm or on a Ray cluster.

A job goes on from its last finished block when it is run again, so one whose process was killed is simply run again.
Every executor counts the runs itself, so that the rule is the same everywhere: :data:`ATTEMPTS` of them, then the job's
outcome is that it was killed, and all other jobs have theirs.
"""

from __future__ import annotations

import os
import signal
from collections import Counter, deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Thread
from typing import Protocol

from thresher.errors import ConfigError
from thresher.terminal import open_console, show_warnings
from thresher_study.outcome import Outcome, Work

ATTEMPTS = 3
"""How often a job whose process is killed is run in all."""


class Executor(Protocol):
    """Runs jobs somewhere."""

    def run(self, names: Sequence[str], work: Work) -> Generator[Outcome]:
        """Exactly one outcome for each of the different ``names``, as they come. Closing it ends what still runs."""
        ...


class Place(Protocol):
    """What has been started and not ended yet."""

    def start(self, names: Sequence[str]) -> None:
        """Begin these jobs, now or when there is room."""
        ...

    def ended(self) -> list[tuple[str, Outcome | None]]:
        """Wait until a job has ended; all that have, with None for those whose process was killed."""
        ...


def outcomes(names: Sequence[str], place: Place) -> Generator[Outcome]:
    """Run all jobs in a place, and those again whose process was killed."""
    runs = Counter(names)
    place.start(names)
    left = len(names)
    while left:
        ended = place.ended()
        again = [name for name, outcome in ended if outcome is None and runs[name] < ATTEMPTS]
        runs.update(again)
        place.start(again)
        left -= len(ended) - len(again)
        yield from (outcome or _killed(name) for name, outcome in ended if name not in again)


def _killed(name: str) -> Outcome:
    often = f"the process that ran it was killed {ATTEMPTS} times"
    return Outcome(name, 0.0, f"{often}, perhaps for want of memory; it goes on where it was when it is run again.")


class Here:
    """One job after another, in this process."""

    def run(self, names: Sequence[str], work: Work) -> Generator[Outcome]:
        """See :meth:`Executor.run`."""
        yield from map(work, names)


@dataclass(frozen=True)
class Processes:
    """``count`` jobs at a time, each in a new process of this machine, which share the threads of this one.

    Raises :class:`ConfigError` where ``count`` is not positive.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"{self.count} processes: name at least one.")

    def run(self, names: Sequence[str], work: Work) -> Generator[Outcome]:
        """See :meth:`Executor.run`."""
        pools = _Pools(self.count, work)
        try:
            yield from outcomes(names, pools)
        finally:
            pools.close()


class _Pools:
    """Pools of one process each: a pool that breaks takes nothing but its own job with it, and tells which that was."""

    def __init__(self, count: int, work: Work) -> None:
        import torch

        self._work = work
        self._threads = max(1, torch.get_num_threads() // count)
        self._spawn = get_context("spawn")
        self._line, self._held = self._spawn.Pipe(duplex=False)
        self._waiting: deque[str] = deque()
        self._free = [self._pool() for _ in range(count)]
        self._busy: dict[Future[Outcome], tuple[str, ProcessPoolExecutor]] = {}

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, self._spawn, _prepare, (self._line,))

    def start(self, names: Sequence[str]) -> None:
        self._waiting.extend(names)
        self._fill()

    def ended(self) -> list[tuple[str, Outcome | None]]:
        done, _ = wait(self._busy, return_when=FIRST_COMPLETED)
        settled = [self._settled(future) for future in done]
        self._fill()
        return settled

    def _fill(self) -> None:
        while self._free and self._waiting:
            self._begin(self._waiting.popleft(), self._free.pop())

    def _begin(self, name: str, pool: ProcessPoolExecutor) -> None:
        with _threads_of_children(self._threads):
            try:
                future = pool.submit(self._work, name)
            except BrokenProcessPool:  # its process was killed when it had nothing to do
                pool = self._pool()
                future = pool.submit(self._work, name)
        self._busy[future] = (name, pool)

    def _settled(self, future: Future[Outcome]) -> tuple[str, Outcome | None]:
        name, pool = self._busy.pop(future)
        try:
            outcome = future.result()
        except BrokenProcessPool:
            outcome, pool = None, self._pool()
        self._free.append(pool)
        return name, outcome

    def close(self) -> None:
        """Let processes without a job end, and end the others at once."""
        for pool in self._free:
            pool.shutdown()
        self._held.close()
        for _, pool in self._busy.values():
            pool.shutdown()
        self._line.close()


@contextmanager
def _threads_of_children(count: int) -> Generator[None]:
    """Processes that start meanwhile use ``count`` threads: torch and numpy read it once, when they are loaded."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def _prepare(line: Connection) -> None:
    """Make a new process ready for jobs. Ctrl-C is for the process that started it to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    show_warnings(open_console(stderr=True))
    Thread(target=_end_with, args=(line,), daemon=True).start()


def _end_with(line: Connection) -> None:
    """End this process, whatever it does, when the other end of the line closes: by hand, or because it was killed."""
    with suppress(EOFError, OSError):
        line.recv_bytes()
    os._exit(1)
