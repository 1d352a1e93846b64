"""What a file of rows may grow to when it is read: a small one can be made to fill any memory."""

from __future__ import annotations

from pathlib import Path

import psutil

from thresher.errors import DataError

_MANY_ROWS, _LARGE, _LONGEST_LINE = 1_000_000, 2**30, 2**30
_DENSEST = 200
"""How many times smaller a file is than texts in it that people would call different, and then some."""


class Bounds:
    """What a file may grow to when it is read. Raises :class:`DataError` for one that is made to fill the memory."""

    def __init__(self, path: Path) -> None:
        self._path, self._packed = path, path.stat().st_size
        self.room = psutil.virtual_memory().available // 2  # rows take as much again when they are worked on
        self.longest_line = min(_LONGEST_LINE, self.room)
        self._rows = self._size = 0

    def count(self, *, rows: int = 0, size: int = 0) -> None:
        """So many more rows and bytes."""
        self._rows, self._size = self._rows + rows, self._size + size
        if self._rows > max(_MANY_ROWS, self._packed):
            raise DataError(
                f"{self._path}: has more rows than its {self._packed:,} bytes, so most are copies of one another; take "
                "these out."
            )
        if self._size > max(_LARGE, _DENSEST * self._packed):
            raise DataError(f"{self._path}: unpacks to over {_DENSEST} times its size; take copies of texts out of it.")
        if self._size > self.room:
            raise DataError(
                f"{self._path}: takes over {self._size / 2**30:.1f} GiB of memory to read, and about "
                f"{2 * self.room / 2**30:.1f} are free; give fewer rows."
            )
