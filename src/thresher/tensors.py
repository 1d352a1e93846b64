"""Named tensors in files that are either whole or absent."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from thresher.checksums import UNFINISHED, verified
from thresher.errors import DataError, first_line
from thresher.files import atomic_write, told_of_disk


def write_tensors(target: Path, tensors: Mapping[str, torch.Tensor], notes: Any = None, *, once: bool = False) -> None:
    """Write named tensors as safetensors; ``notes`` is any JSON value kept in the header, ``once`` as in
    :func:`thresher.files.atomic_write`.
    """
    with atomic_write(target, once=once) as temporary:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata={"notes": json.dumps(notes)})


def read_tensors(source: Path, names: Collection[str] | None = None) -> tuple[dict[str, torch.Tensor], Any]:
    """Tensors by name (all, or those of ``names`` that are there), and the notes.

    Raises :class:`DamagedError` where the file is not what was written.
    """
    with safe_open(verified(source), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if names is None or name in names}  # noqa: SIM118
        return tensors, json.loads((file.metadata() or {}).get("notes", "null"))


def shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a file by name. Raises :class:`DataError` where it is damaged."""
    try:
        with safe_open(verified(file), framework="pt") as opened:
            return {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise DataError(f"{file}: is damaged ({first_line(error)}); save it again.") from None


def tensors_of(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    """The same numbers, as they are written."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class Shelf:
    """Tensors that are needed again and again: at hand up to ``memory`` bytes, beyond it in a temporary folder.

    That one is made in ``folder``, where what a kill leaves of it is known by its name, or where temporary files are.
    What lies there is mapped, so that the system takes its memory back when it needs it.
    """

    def __init__(self, memory: int | None = None, folder: Path | None = None) -> None:
        self._free, self._where = memory, folder
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same numbers, as they are kept."""
        if self._free is None or tensor.nbytes <= self._free:
            self._free = None if self._free is None else self._free - tensor.nbytes
            return tensor.cpu()
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix=".shelf-", suffix=UNFINISHED, dir=self._where)
        self._count += 1
        file = Path(self._folder.name) / f"{self._count}.npy"
        with told_of_disk(file):
            np.save(file, tensor.cpu().numpy())
        return torch.from_numpy(np.load(file, mmap_mode="c"))

    def close(self) -> None:
        """Take what is kept off the disk."""
        if self._folder is not None:
            self._folder.cleanup()
