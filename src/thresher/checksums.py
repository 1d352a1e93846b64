"""What every file under a folder was when it was written: ``checksums.txt``, a line a file, as ``sha256sum`` has them.

Lines only ever are added, and a file may be what any of its lines says, up to the one that says it was removed; so two
processes can write at once. A file that takes the place of another is listed before, a new one after: a process killed
between the two leaves nothing that looks damaged. What is not in the list is not known to be; what is, must be there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from thresher.errors import DamagedError

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

CHECKSUMS = "checksums.txt"
UNFINISHED = ".part"
"""What the name of a file or folder ends with that is being written."""
_REMOVED = "removed"

Known = Mapping[str, set[str]]
"""Digests by name, which is relative to the folder of the list."""

_Seen = tuple[int, int, int]
_lists: dict[Path, tuple[_Seen, Known]] = {}
_sound: dict[Path, tuple[_Seen, str]] = {}
"""Files that were hashed in this process, and are since then what they were."""
_expected: dict[Path, set[str]] = {}
"""Files that were taken away because they were damaged, and what they were before."""


def keep_checksums(folder: Path) -> None:
    """Record from now on what is written under ``folder``, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CHECKSUMS).touch()


def root_of(file: Path) -> Path | None:
    """The nearest folder above a file that has a list, if any."""
    return next((parent for parent in file.absolute().parents if (parent / CHECKSUMS).is_file()), None)


def known_in(folder: Path) -> Known:
    """The list of a folder. A line that a kill or a full disk cut off says nothing."""
    file = folder / CHECKSUMS
    seen = _seen(file)
    if folder not in _lists or _lists[folder][0] != seen:
        found: dict[str, set[str]] = {}
        for line in file.read_bytes().split(b"\n")[:-1]:
            digest, _, name = (os.fsdecode(part) for part in line.partition(b"  "))
            if digest == _REMOVED:
                below = [one for one in found if one == name or one.startswith(f"{name}/")]
                for one in below:
                    del found[one]
            else:
                found.setdefault(name, set()).add(digest)
        _lists[folder] = seen, found
    return _lists[folder][1]


def digests_of(file: Path) -> set[str]:
    """What the list says that a file may be; nothing where it is in none."""
    root = root_of(file)
    return set() if root is None else known_in(root).get(_name(file, root), set())


def record(files: Mapping[Path, Path] | Iterable[Path]) -> None:
    """Add lines for finished files, or for what is to take their places: a mapping from these to where it is now."""
    places = dict(files) if isinstance(files, Mapping) else {file: file for file in files}
    lines: dict[Path, bytes] = {}
    for file, now in places.items():
        root = root_of(file)
        if root is not None and not any(part.endswith(UNFINISHED) for part in file.parts):
            digest = hash_file(now)
            _sound[file.absolute()] = _seen(now), digest
            _tell_if_other(file, digest)
            if digest not in known_in(root).get(_name(file, root), ()):
                lines[root] = lines.get(root, b"") + f"{digest}  ".encode() + os.fsencode(_name(file, root)) + b"\n"
    for root, text in lines.items():
        _append(root / CHECKSUMS, text)


def forget(path: Path) -> None:
    """Say of a file or folder that it was removed on purpose."""
    root = root_of(path)
    if root is not None and _below(path, root):
        _append(root / CHECKSUMS, f"{_REMOVED}  ".encode() + os.fsencode(_name(path, root)) + b"\n")


def expect(path: Path) -> None:
    """Where a damaged file, or what was in a folder, is made again, warn if it comes to be another than it was."""
    root = root_of(path)
    if root is not None:
        _expected.update({root / one: known_in(root)[one] for one in _below(path, root)})


def is_damaged(file: Path) -> bool:
    """Whether a file is in a list and is not, or no longer, what was written; it is read once in a process."""
    known = digests_of(file)
    return bool(known) and (not file.is_file() or _hash_once(file) not in known)


def any_damaged(folder: Path) -> bool:
    """Whether a file that was written in a folder is not, or no longer, what was written."""
    root = root_of(folder)
    return root is not None and any(is_damaged(root / name) for name in _below(folder, root))


def verified(file: Path, *, listed: bool = False) -> Path:
    """The same file. Raises :class:`DamagedError` where it is damaged, or ought to be ``listed`` and is not."""
    if is_damaged(file) or (listed and not digests_of(file)):
        raise DamagedError(file, gone=not file.exists())
    return file


def hash_file(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash_once(file: Path) -> str:
    place, seen = file.absolute(), _seen(file)
    if place not in _sound or _sound[place][0] != seen:
        _sound[place] = seen, hash_file(file)
    return _sound[place][1]


def _tell_if_other(file: Path, digest: str) -> None:
    before = _expected.pop(file.absolute(), set())
    if before and digest not in before:
        log.warning(
            "%s: was made again and is not the same to the last bit, so what was made from it before may differ from "
            "it by rounding.",
            file,
        )


def _seen(file: Path) -> _Seen:
    about = file.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def _below(path: Path, root: Path) -> list[str]:
    """What is in the list of a path: a file, or all that was in a folder."""
    name = _name(path, root)
    return [one for one in known_in(root) if one == name or one.startswith(f"{name}/")]


def _name(file: Path, root: Path) -> str:
    return file.absolute().relative_to(root).as_posix().replace("\\", "\\\\").replace("\n", "\\n")


def _append(file: Path, text: bytes) -> None:
    """Add whole lines, also where another process does so at this moment or one was cut off before."""
    with file.open("r+b") as stream:
        if sys.platform != "win32":
            fcntl.flock(stream, fcntl.LOCK_EX)
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - 1))
        whole = stream.read(1) in (b"", b"\n")
        stream.write(text if whole else b"\n" + text)
