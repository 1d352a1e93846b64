"""A Zarr folder of which every file that is read is what was written.

Zarr takes a chunk that is not there for one of nothing but the fill value, and would go on with it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from zarr.storage import LocalStore, WrapperStore

from thresher.checksums import known_in, root_of
from thresher.errors import DamagedError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class CheckedStore(WrapperStore[LocalStore]):
    """The files of a folder, read only; reading one raises :class:`DamagedError` where it is gone or damaged.

    What no list of checksums has, such as a chunk that was never written, is as the folder has it.
    """

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        root = root_of(store.root / "zarr.json")
        above = "" if root is None else f"{store.root.absolute().relative_to(root).as_posix()}/"
        known = {} if root is None else known_in(root)
        self._known = {name.removeprefix(above): found for name, found in known.items() if name.startswith(above)}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """A file, or a part of it."""
        digests = self._known.get(key)
        whole = await self._store.get(key, prototype, None if digests else byte_range)
        if digests is None:
            return whole
        if whole is None or hashlib.sha256(whole.to_bytes()).hexdigest() not in digests:
            raise DamagedError(self._store.root / key, gone=whole is None)
        return whole if byte_range is None else await self._store.get(key, prototype, byte_range)


def checked_folder(folder: Path) -> CheckedStore:
    """The files of a Zarr folder, checked as they are read."""
    return CheckedStore(LocalStore(folder, read_only=True))
