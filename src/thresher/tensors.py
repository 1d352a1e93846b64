"""Named tensors in files that are either whole or absent."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from thresher.checksums import verified
from thresher.files import atomic_write


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


def tensors_of(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    """The same numbers, as they are written."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
