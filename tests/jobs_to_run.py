"""Jobs that processes elsewhere can import: each call leaves a line in the folder, so that calls can be counted."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

from thresher_study.outcome import Outcome


def calls(folder: Path) -> dict[str, int]:
    """How often each job was begun."""
    return {path.name: len(path.read_text().splitlines()) for path in folder.glob("*")}


def noted(folder: Path, name: str) -> int:
    """Note a call; how many there have been, this one included."""
    with (folder / name).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return calls(folder)[name]


def ordinary(folder: Path, name: str) -> Outcome:
    """A job that ends, with an error where its name says so."""
    noted(folder, name)
    return Outcome(name, 1.5, "no such model." if name.startswith("wrong") else None)


def perilous(folder: Path, name: str) -> Outcome:
    """A job whose process is killed the first time ("once...") or every time ("always...")."""
    times = noted(folder, name)
    if name.startswith("always") or (name.startswith("once") and times == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(name, float(times), None)


def interrupted(folder: Path, name: str) -> Outcome:
    """A job that is told, the first time, that its time is up."""
    if noted(folder, name) == 1:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(3600)
    return Outcome(name, 0.0, None)


def endless(folder: Path, name: str) -> Outcome:
    """A job that does not end by itself."""
    noted(folder, name)
    time.sleep(3600)
    return Outcome(name, 0.0, None)


def stranded(folder: Path, name: str) -> Outcome:
    """A job that never ends the first time, and soon the second time."""
    return endless(folder, name) if not (folder / name).exists() else ordinary(folder, name)


def broken(folder: Path, name: str) -> Outcome:
    """A job that raises, which no job should."""
    raise ValueError("broken")


def threads(name: str) -> Outcome:
    """A job that tells, for want of other words, how many threads its process may use, and how many torch takes."""
    taken = 0
    if name == "torch":
        import torch

        taken = torch.get_num_threads()
    return Outcome(name, float(taken), os.environ["OMP_NUM_THREADS"])


def warned(name: str) -> Outcome:
    """A job that warns of what it was given."""
    logging.getLogger("thresher.jobs").warning("%s \x1b[31mred\nerror: forged", name)
    return Outcome(name, 0.0, None)
