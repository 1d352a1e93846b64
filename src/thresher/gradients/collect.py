"""The gradient stage: rows through the pass, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from thresher.arrays import Indices
from thresher.data.encode import EncodedRows, length_batches
from thresher.gradients.hooks import BatchGradients, GradientPass, NonFiniteError
from thresher.gradients.rows import HeadRows, RowGradients, TokenGradients, concatenate, on_device
from thresher.gradients.store import GradientStore
from thresher.progress import Progress

# A block is what a killed run loses at most, and what the products read at a time: large enough for fast matrix
# products, small against any budget. It does not depend on the budget, so that results do not either.
BLOCK_BYTES = 256 * 2**20
BLOCK_ROWS = 512


@dataclass(frozen=True)
class Rows:
    """Rows to be passed: which of a ``side`` they are ([n], None for all), as an error names them.

    ``scales``, by module name and in the parameter's shape, multiply gradients entry by entry.
    """

    data: EncodedRows
    side: str
    numbers: Indices | None = None
    scales: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def take(self, rows: Indices) -> Rows:
        """Some of the rows."""
        return replace(self, data=self.data.take(rows), numbers=rows if self.numbers is None else self.numbers[rows])


def batch_rows(batch_size: int, row_bytes: int) -> int:
    """Rows a batch of the gradient pass: ``batch_size``, or as many as fit in one block."""
    return max(1, min(batch_size, BLOCK_BYTES // max(row_bytes, 1)))


def plan_blocks(lengths: Indices, batch_size: int, row_bytes: int) -> list[Indices]:
    """Rows of like length together, in blocks of whole batches of at most about ``BLOCK_BYTES``."""
    batches = length_batches(lengths, batch_size)
    each = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(row_bytes, 1)) // batch_size)
    starts = range(0, len(batches), each)
    return [torch.cat([torch.from_numpy(b) for b in batches[i : i + each]]).numpy() for i in starts]


def collect(one_pass: GradientPass, store: GradientStore, rows: Rows, batch_size: int, progress: Progress) -> None:
    """Fill the store with the blocks it does not have yet. Raises :class:`GradientError` naming the rows."""
    with progress.stage(f"gradients of {rows.side} rows", len(store)) as advance:
        for number, block in enumerate(store.rows):
            if not store.has(number):
                found = pass_block(one_pass, rows, block, batch_size)
                modules = {name: on_device(part, torch.device("cpu")) for name, part in found.modules.items()}
                store.put(number, replace(found, modules=modules))
            advance(len(block))


def pass_block(one_pass: GradientPass, rows: Rows, block: Indices, batch_size: int) -> BatchGradients:
    """Gradients of some of the rows, on the model's device. Raises :class:`GradientError` naming those at fault."""
    try:
        parts = [
            _pass_batch(one_pass, rows, block[start : start + batch_size]) for start in range(0, len(block), batch_size)
        ]
    except NonFiniteError as error:
        named = error.rows if rows.numbers is None else rows.numbers[error.rows].tolist()
        raise NonFiniteError(error.kind, named, f"{rows.side} row") from None
    return BatchGradients(
        {name: concatenate([part.modules[name] for part in parts]) for name in parts[0].modules},
        torch.cat([part.losses for part in parts]),
        torch.cat([part.outputs for part in parts]),
    )


def _pass_batch(one_pass: GradientPass, rows: Rows, batch: Indices) -> BatchGradients:
    found = one_pass.gradients(rows.data, rows.data.batch(batch, one_pass.pad_id, one_pass.device))
    modules = {name: _scale(_single(part), rows.scales.get(name)) for name, part in found.modules.items()}
    return BatchGradients(modules, found.losses.float().cpu(), found.outputs.float().cpu())


def _single(gradients: RowGradients) -> RowGradients:
    return _float(gradients) if isinstance(gradients, Tensor) else gradients.map_tensors(_float)


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _scale(gradients: RowGradients, scale: Tensor | None) -> RowGradients:
    if scale is None or isinstance(gradients, HeadRows):
        return gradients
    if isinstance(gradients, TokenGradients):
        scale = scale.to(gradients.value.device)
        return replace(gradients, value=gradients.value * scale[gradients.token])
    whole = gradients if isinstance(gradients, Tensor) else gradients.dense()
    return whole * scale.flatten().to(whole.device)
