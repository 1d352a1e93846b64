"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thresher.errors import RunError

UNFINISHED = ".part"


@contextmanager
def atomic_write(target: Path) -> Generator[Path]:
    """Yield a temporary path beside ``target``; on leaving without an error it takes the place of ``target``.

    Raises :class:`RunError` where the disk refuses.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}{UNFINISHED}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise RunError(f"{target}: cannot be written ({error.strerror or error}).") from None
    finally:
        if target.parent.is_dir():
            temporary.unlink(missing_ok=True)


@contextmanager
def written_folder(target: Path) -> Generator[Path]:
    """Yield an empty temporary folder beside ``target``, which on leaving without an error takes its place.

    Where another process has meanwhile made ``target``, that one stays. Raises :class:`RunError` where the disk
    refuses.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}{UNFINISHED}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed process of the same number
        temporary.mkdir(parents=True)
        yield temporary
        if not target.exists():
            temporary.replace(target)
    except OSError as error:
        raise RunError(f"{target}: cannot be written ({error.strerror or error}).") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """``value`` as indented JSON, which ends with a line break."""
    return json.dumps(value, indent=2, ensure_ascii=ascii_only) + "\n"


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` as indented JSON."""
    with atomic_write(target) as temporary:
        text = json_text(value)
        # A file name that is no UTF-8 has halves of characters, which are left as JSON escapes.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(source: Path, default: Any = None) -> Any:
    """The JSON value in ``source``, or ``default`` where there is no such file."""
    return json.loads(source.read_text(encoding="utf-8")) if source.exists() else default
