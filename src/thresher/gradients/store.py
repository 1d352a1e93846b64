"""Blocks of one side's gradients: in memory up to a budget, on disk beyond it or where a killed run must find them.

A block holds some rows: every module's gradients, the rows' losses [B] and outputs [B, C]. On disk it is one
safetensors file, written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from thresher.arrays import Indices
from thresher.checksums import verified
from thresher.files import remove
from thresher.gradients.hooks import BatchGradients
from thresher.gradients.rows import ENTRY_FORMS, RowGradients, on_device
from thresher.locks import Scratch
from thresher.tensors import write_tensors


class GradientStore:
    """Blocks of rows by number.

    ``rows`` says which rows of the data each block holds. With a ``folder`` every block is written there, and
    ``memory`` bytes of them are also kept at hand; without one, blocks beyond ``memory`` bytes go to a temporary
    folder that lives as long as the store.

    ``labels`` are the rows' classes [n] int64, all 0 unless they are set; ``head`` is the matrix and bias of the last
    linear layer where a language model's head is audited; ``device`` is where gradients are met.
    """

    def __init__(self, rows: Sequence[Indices], memory: int, folder: Path | None = None) -> None:
        self.rows = rows
        self.labels: Tensor = torch.zeros(len(self), dtype=torch.int64)
        self.head: tuple[Tensor, Tensor | None] | None = None
        self.device = torch.device("cpu")
        self.free = memory
        self._kept: dict[int, BatchGradients] = {}
        self._temporary: Scratch | None = None
        self._durable = folder is not None
        self._folder = folder

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    def has(self, number: int) -> bool:
        """Whether this block is finished."""
        return number in self._kept or (self._folder is not None and self._file(number).exists())

    def put(self, number: int, block: BatchGradients) -> None:
        """Store a finished block."""
        fits = block.nbytes <= self.free
        if fits:
            self._kept[number] = block
            self.free -= block.nbytes
        if self._durable or not fits:
            if self._folder is None:
                self._temporary = Scratch()
                self._folder = self._temporary.path
            write_tensors(self._file(number), _tensors(block))

    def blocks(self, module: str, start: int = 0) -> Iterator[tuple[Indices, RowGradients]]:
        """One module's gradients, block by block, with the rows they belong to."""
        for number, rows in list(enumerate(self.rows))[start:]:
            yield rows, on_device(self._module(number, module), self.device)

    def predictions(self) -> tuple[Tensor, Tensor]:
        """Losses [n] and outputs [n, C] of all rows, in the order of the data."""
        parts = [self._predictions(number) for number in range(len(self.rows))]
        order = torch.from_numpy(np.argsort(np.concatenate(self.rows)))
        return torch.cat([losses for losses, _ in parts])[order], torch.cat([outputs for _, outputs in parts])[order]

    def close(self) -> None:
        """Forget every block, on disk too."""
        self._kept = {}
        if self._folder is not None:
            for file in self._folder.glob("*.safetensors"):
                remove(file)
        if self._temporary is not None:
            self._temporary.close()

    def _file(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{number:05d}.safetensors"

    def _module(self, number: int, module: str) -> RowGradients:
        kept = self._kept.get(number)
        if kept is not None:
            return kept.modules[module]
        with safe_open(verified(self._file(number)), framework="pt") as file:
            present = set(file.keys())
            for form in ENTRY_FORMS:
                names = {part: f"{module}|{part}" for part in form.parts()}
                if present.issuperset(names.values()):
                    # Copied to where tensors lie in memory: how matrix products round hangs on that.
                    tensors = {part: file.get_tensor(name).clone() for part, name in names.items()}
                    return form(rows=len(self.rows[number]), **tensors)
            return file.get_tensor(module).clone()

    def _predictions(self, number: int) -> tuple[Tensor, Tensor]:
        kept = self._kept.get(number)
        if kept is not None:
            return kept.losses, kept.outputs
        with safe_open(verified(self._file(number)), framework="pt") as file:
            return file.get_tensor("|losses"), file.get_tensor("|outputs")


def _tensors(block: BatchGradients) -> dict[str, Tensor]:
    tensors = {"|losses": block.losses, "|outputs": block.outputs}
    for name, gradients in block.modules.items():
        if isinstance(gradients, Tensor):
            tensors[name] = gradients
        else:
            tensors |= {f"{name}|{part}": value for part, value in gradients.tensors().items()}
    return tensors
