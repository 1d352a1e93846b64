"""Blocks of gradients: kept in memory up to a budget, on disk beyond it or where a killed run must find them again.

A block holds some rows of one side ("query" or "train"): every module's gradients, the rows' losses [B] and
outputs [B, C]. On disk it is one safetensors file, written whole or not at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from thresher.arrays import Indices
from thresher.gradients.hooks import BatchGradients
from thresher.gradients.rows import ENTRY_FORMS, RowGradients
from thresher.tensors import write_tensors

Side = Literal["query", "train"]


class GradientStore:
    """Blocks of both sides by number.

    ``rows[side]`` says which rows of the data each block holds. With a ``folder`` every block is written there, and
    ``memory`` bytes of them are also kept at hand; without one, blocks beyond ``memory`` bytes go to a temporary
    folder that lives as long as the store.

    ``labels`` are the rows' classes [n] int64, all 0 unless they are set; ``head`` is the matrix and bias of the last
    linear layer where a language model's head is audited.
    """

    def __init__(self, rows: dict[Side, list[Indices]], memory: int, folder: Path | None = None) -> None:
        self.rows = rows
        self.labels: dict[Side, Tensor] = {side: torch.zeros(self.count(side), dtype=torch.int64) for side in rows}
        self.head: tuple[Tensor, Tensor | None] | None = None
        self._memory, self._used = memory, 0
        self._kept: dict[tuple[Side, int], BatchGradients] = {}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._durable = folder is not None
        self._folder = folder

    def count(self, side: Side) -> int:
        """Rows of one side."""
        return sum(len(rows) for rows in self.rows[side])

    def has(self, side: Side, number: int) -> bool:
        """Whether this block is finished."""
        return (side, number) in self._kept or (self._folder is not None and self._file(side, number).exists())

    def put(self, side: Side, number: int, block: BatchGradients) -> None:
        """Store a finished block."""
        size = sum(gradients.nbytes for gradients in block.modules.values())
        fits = self._used + size <= self._memory
        if fits:
            self._kept[side, number] = block
            self._used += size
        if self._durable or not fits:
            if self._folder is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="thresher-")
                self._folder = Path(self._temporary.name)
            write_tensors(self._file(side, number), _tensors(block))

    def blocks(self, side: Side, module: str) -> Iterator[tuple[Indices, RowGradients]]:
        """One module's gradients, block by block, with the rows they belong to."""
        for number, rows in enumerate(self.rows[side]):
            yield rows, self._module(side, number, module)

    def predictions(self, side: Side) -> tuple[Tensor, Tensor]:
        """Losses [n] and outputs [n, C] of all rows of one side, in the order of the data."""
        parts = [self._predictions(side, number) for number in range(len(self.rows[side]))]
        order = torch.from_numpy(np.argsort(np.concatenate(self.rows[side])))
        return torch.cat([losses for losses, _ in parts])[order], torch.cat([outputs for _, outputs in parts])[order]

    def close(self) -> None:
        """Forget every block, on disk too."""
        self._kept, self._used = {}, 0
        if self._folder is not None:
            for file in self._folder.glob("*.safetensors"):
                file.unlink()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _file(self, side: Side, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{side}-{number:05d}.safetensors"

    def _module(self, side: Side, number: int, module: str) -> RowGradients:
        kept = self._kept.get((side, number))
        if kept is not None:
            return kept.modules[module]
        with safe_open(self._file(side, number), framework="pt") as file:
            present = set(file.keys())
            for form in ENTRY_FORMS:
                names = {part: f"{module}|{part}" for part in form.parts()}
                if present.issuperset(names.values()):
                    tensors = {part: file.get_tensor(name) for part, name in names.items()}
                    return form(rows=len(self.rows[side][number]), **tensors)
            return file.get_tensor(module)

    def _predictions(self, side: Side, number: int) -> tuple[Tensor, Tensor]:
        kept = self._kept.get((side, number))
        if kept is not None:
            return kept.losses, kept.outputs
        with safe_open(self._file(side, number), framework="pt") as file:
            return file.get_tensor("|losses"), file.get_tensor("|outputs")


def _tensors(block: BatchGradients) -> dict[str, Tensor]:
    tensors = {"|losses": block.losses, "|outputs": block.outputs}
    for name, gradients in block.modules.items():
        if isinstance(gradients, Tensor):
            tensors[name] = gradients
        else:
            tensors |= {f"{name}|{part}": value for part, value in gradients.tensors().items()}
    return tensors
