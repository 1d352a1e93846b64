"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from thresher import checksums
from thresher.checksums import UNFINISHED, digests_of, hash_file, record, verified
from thresher.errors import DataError, RunError, first_line
from thresher.parsing import UnclearError, parse_json

log = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk, a quota or a limit on the size of files says when there is no more room."""


@contextmanager
def atomic_write(target: Path, *, once: bool = False) -> Generator[Path]:
    """Yield a temporary path beside ``target``; on leaving without an error it takes the place of ``target``.

    What it holds is recorded (:mod:`thresher.checksums`). Raises :class:`RunError` where the disk refuses, and where
    something is to be the same whenever it is written (``once``) and is another than it was.
    """
    temporary = _temporary(target)
    with told_of_disk(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(target)
            yield temporary
            if once and (before := digests_of(target)) and hash_file(temporary) not in before:
                raise RunError(
                    f"{target}: is damaged, and cannot be made again as it was, with which other files here were made; "
                    "begin anew with another --output."
                )
            new = not target.exists()
            if not new:
                record({target: temporary})
            temporary.replace(target)
            if new:
                record([target])
        finally:
            if target.parent.is_dir():
                temporary.unlink(missing_ok=True)


@contextmanager
def written_folder(target: Path) -> Generator[Path]:
    """Yield an empty temporary folder beside ``target``, which on leaving without an error takes its place.

    Where another process has meanwhile made ``target``, that one stays. Raises :class:`RunError` where the disk
    refuses.
    """
    temporary = _temporary(target)
    with told_of_disk(target):
        try:
            _remove_leftovers(target)
            temporary.mkdir(parents=True)
            yield temporary
            if not target.exists():
                temporary.replace(target)
                record(files_in(target))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def told_of_disk(target: Path | None = None) -> Generator[None]:
    """Within, what the system or a library says of a disk that refuses ``target``, or any file that the system names,
    becomes a :class:`RunError`.
    """
    try:
        yield
    except OSError as error:
        if target is None and error.filename is None:  # of a network, say
            raise
        refused = target or Path(os.fsdecode(error.filename))
        raise RunError(_refusal(refused, error.errno, error.strerror or str(error))) from None
    except SafetensorError as error:  # which names no file, and tells the number of the system's error only in words
        full = next((number for number in _FULL if f"os error {number})" in str(error)), None)
        if target is None:
            raise
        raise RunError(_refusal(target, full, first_line(error))) from None


def is_full(error: BaseException) -> bool:
    """Whether an error says that there is no room left."""
    return isinstance(error, OSError) and error.errno in _FULL


def files_in(folder: Path) -> list[Path]:
    """Every file under a folder, sorted; none where there is no such folder."""
    return sorted(file for file in folder.rglob("*") if file.is_file())


def remove(path: Path, *, forget: bool = True) -> None:
    """Take a file, or a folder with all in it, off the disk and, to ``forget`` it, off the list of checksums."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    if forget:
        checksums.forget(path)


def make_anew(path: Path, *, forget: bool = True) -> None:
    """Take away what is to be made again; a warning will say if it comes to be another than it was."""
    checksums.expect(path)
    remove(path, forget=forget)


def restore_folder(folder: Path) -> None:
    """Take away a whole folder, where a file that was written in it is gone or damaged; whoever made it will again."""
    if checksums.any_damaged(folder):
        make_anew(folder)
        log.warning("%s: is damaged, and is made again.", folder)


def _refusal(target: Path, number: int | None, said: str) -> str:
    what = "make room there and run the same command again" if number in _FULL else "mend that or name another place"
    return f"{target}: cannot be written ({said.rstrip('.')}); {what}."


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}{UNFINISHED}")


def _remove_leftovers(target: Path) -> None:
    """Take away what killed processes left of ``target``, this process's number among theirs."""
    for found in _leftovers(target.parent.absolute()):
        name, _, process = found.name.removesuffix(UNFINISHED).rpartition(".")
        if name == f".{target.name}" and process.isdecimal() and not _lives(int(process)):
            remove(found)


@cache
def _leftovers(folder: Path) -> tuple[Path, ...]:
    """Unfinished files that were in a folder before this process wrote there."""
    return tuple(folder.glob(f".*{UNFINISHED}"))


def _lives(process: int) -> bool:
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """``value`` as indented JSON, which ends with a line break."""
    return json.dumps(value, indent=2, ensure_ascii=ascii_only) + "\n"


def write_json(target: Path, value: Any, *, once: bool = False) -> None:
    """Write ``value`` as indented JSON; ``once`` as in :func:`atomic_write`."""
    with atomic_write(target, once=once) as temporary:
        text = json_text(value)
        # A file name that is no UTF-8 has halves of characters, which are left as JSON escapes.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(source: Path, default: Any = None) -> Any:
    """The JSON value in ``source``, or ``default`` where there is no such file.

    Raises :class:`DamagedError` where it is not what was written, :class:`DataError` where it is none of ours and no
    JSON.
    """
    if not source.exists():
        return default
    try:
        return parse_json(verified(source).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise DataError(f"{source}: not UTF-8 text; save the file as UTF-8.") from None
    except UnclearError as error:
        raise DataError(f"{source}, line {error.line}: not valid JSON ({error}); mend the file.") from None


def read_given(source: Path, kind: Any) -> Any:
    """What a JSON file that is none of ours holds, ``{}`` where there is none, as a type: ``dict[str, int]``.

    Raises :class:`DataError` where it holds something else.
    """
    try:
        return TypeAdapter(kind).validate_python(read_json(source, {}))
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise DataError(f"{source}: {place}{first['msg'][:1].lower()}{first['msg'][1:]}; mend the file.") from None
