"""One process at a time in a folder, and temporary folders: a lock says who has one, and ends with its process."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from thresher.errors import RunError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
_SCRATCH, _OLD = ".thresher-scratch-", 3600


@contextmanager
def hold(folder: Path, *, shared: bool = False) -> Generator[None]:
    """Keep other processes out of ``folder``, or where ``shared`` those that do not share it.

    Raises :class:`RunError` naming the process that is there already, or where the disk refuses. The file of a lock is
    left by a kill and by those who share, and holds nobody up: the system forgets a lock with its process.
    """
    if sys.platform == "win32":  # which has no such locks
        yield
        return
    file = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = _lock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    except OSError as error:
        raise RunError(f"{file}: cannot be written ({error.strerror or error}); mend that and try again.") from None
    try:
        yield
    finally:
        if not shared:
            file.unlink(missing_ok=True)
        os.close(held)


def _lock(file: Path, how: int) -> int:
    """The open file, locked and with our name in it."""
    assert sys.platform != "win32"
    while True:
        opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(opened, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            raise RunError(f"{file.parent}: {_holder(file)} works here; wait until it has ended, or end it.") from None
        if file.exists() and os.path.samestat(os.fstat(opened), file.stat()):
            break
        os.close(opened)  # its last holder took the file away meanwhile
    os.ftruncate(opened, 0)
    os.write(opened, json.dumps(_ourselves()).encode())
    return opened


class Scratch:
    """A temporary folder, ``path``, until it is closed; a kill leaves one that the next process to make one removes."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix=_SCRATCH)
        self.path = Path(self._folder.name)
        self._held: int | None = None
        if sys.platform != "win32":
            self._held = _lock(self.path / LOCK, fcntl.LOCK_EX)
            for left in self.path.parent.glob(f"{_SCRATCH}*"):
                if _is_left(left):
                    shutil.rmtree(left, ignore_errors=True)

    def close(self) -> None:
        """Take it away with all in it."""
        self._folder.cleanup()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_left(folder: Path) -> bool:
    """Whether nobody has a temporary folder any more."""
    assert sys.platform != "win32"
    try:
        with (folder / LOCK).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except FileNotFoundError:  # it is just being made, or its process was killed then
        return folder.is_dir() and time.time() - folder.stat().st_mtime > _OLD
    except OSError:  # somebody has it, or it is another user's
        return False


def _ourselves() -> dict[str, Any]:
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "since": now, "command": shlex.join(sys.argv)}


def _holder(file: Path) -> str:
    try:
        who = json.loads(file.read_text(encoding="utf-8"))
        return f"process {who['process']} on {who['host']} (since {who['since']}: {who['command']:.200})"
    except (OSError, ValueError, KeyError, TypeError):  # it is about to write its name, or has just ended
        return "another process"
