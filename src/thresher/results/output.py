"""Where a command may write: never over what it reads, nor into a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from thresher.checksums import root_of
from thresher.errors import ConfigError
from thresher.files import atomic_write


def refuse_overwriting(option: str, target: Path, inputs: Iterable[str | Path | None] = (), allowed: str = "") -> None:
    """Raise :class:`ConfigError` where ``target`` lies in the folder of a run or study, or is one of ``inputs``.

    An input is a file, or any file of a folder; what is neither, such as a hub id, passes. ``allowed`` says what
    allows to write over one.
    """
    for place in (target, target.resolve()):
        if (folder := root_of(place)) is not None:
            raise ConfigError(f"{option} {target}: lies in the run in {folder}, which is left as it is; name another.")
    for given in filter(None, inputs):
        if target.exists() and _holds(Path(given), target):
            raise ConfigError(
                f"{option} {target}: is read for what would be written over it; name another file{allowed}."
            )


def keep_backup(target: Path, inputs: Iterable[str | Path | None]) -> Path | None:
    """A copy beside ``target`` under a new name, where it is one of ``inputs``."""
    if not target.exists() or not any(_holds(Path(given), target) for given in filter(None, inputs)):
        return None
    number = 1
    while (backup := target.with_name(f"{target.name}.{number}.bak")).exists():
        number += 1
    with atomic_write(backup) as temporary:
        shutil.copy2(target, temporary)
    return backup


def _holds(given: Path, target: Path) -> bool:
    if given.is_dir():
        return target.resolve().is_relative_to(given.resolve())
    return given.exists() and given.samefile(target)
