"""The gradient stage: every row of both sides through the pass, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from thresher.arrays import Indices
from thresher.data.encode import EncodedRows, length_batches
from thresher.gradients.hooks import BatchGradients, GradientPass, NonFiniteError
from thresher.gradients.rows import HeadRows, RowGradients, TokenGradients, concatenate
from thresher.gradients.store import GradientStore, Side
from thresher.progress import Progress

# A block is what a killed run loses at most, and what the products read at a time: large enough for fast matrix
# products, small against any budget. It does not depend on the budget, so that results do not either.
BLOCK_BYTES = 256 * 2**20
BLOCK_ROWS = 512


def batch_rows(batch_size: int, row_bytes: int) -> int:
    """Rows a batch of the gradient pass: ``batch_size``, or as many as fit in one block."""
    return max(1, min(batch_size, BLOCK_BYTES // max(row_bytes, 1)))


def plan_blocks(lengths: Indices, batch_size: int, row_bytes: int) -> list[Indices]:
    """Rows of like length together, in blocks of whole batches of at most about ``BLOCK_BYTES``."""
    batches = length_batches(lengths, batch_size)
    each = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(row_bytes, 1)) // batch_size)
    starts = range(0, len(batches), each)
    return [torch.cat([torch.from_numpy(b) for b in batches[i : i + each]]).numpy() for i in starts]


def collect(
    one_pass: GradientPass,
    store: GradientStore,
    data: dict[Side, EncodedRows],
    batch_size: int,
    progress: Progress,
    multipliers: Mapping[str, Tensor] | None = None,
) -> None:
    """Fill the store with the blocks it does not have yet. Raises :class:`GradientError` naming the rows.

    ``multipliers``, by module name and in the parameter's shape, scale the gradients of training rows entry by entry.
    """
    for side, rows in data.items():
        blocks = store.rows[side]
        scales = multipliers if side == "train" and multipliers else {}
        with progress.stage(f"gradients of {side} rows", sum(map(len, blocks))) as advance:
            for number, block in enumerate(blocks):
                if not store.has(side, number):
                    try:
                        store.put(side, number, _block(one_pass, rows, block, batch_size, scales))
                    except NonFiniteError as error:
                        raise NonFiniteError(error.kind, error.rows, f"{side} row") from None
                advance(len(block))


def _block(
    one_pass: GradientPass, data: EncodedRows, rows: Indices, batch_size: int, scales: Mapping[str, Tensor]
) -> BatchGradients:
    parts: list[BatchGradients] = []
    for start in range(0, len(rows), batch_size):
        batch = data.batch(rows[start : start + batch_size], one_pass.pad_id, one_pass.device)
        found = one_pass.gradients(data, batch)
        modules = {name: _scale(_single(gradients), scales.get(name)) for name, gradients in found.modules.items()}
        parts.append(BatchGradients(modules, found.losses.float().cpu(), found.outputs.float().cpu()))
    return BatchGradients(
        {name: concatenate([part.modules[name] for part in parts]) for name in parts[0].modules},
        torch.cat([part.losses for part in parts]),
        torch.cat([part.outputs for part in parts]),
    )


def _single(gradients: RowGradients) -> RowGradients:
    return _move(gradients) if isinstance(gradients, Tensor) else gradients.map_tensors(_move)


def _move(tensor: Tensor) -> Tensor:
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu()


def _scale(gradients: RowGradients, scale: Tensor | None) -> RowGradients:
    if scale is None or isinstance(gradients, HeadRows):
        return gradients
    if isinstance(gradients, TokenGradients):
        return replace(gradients, value=gradients.value * scale[gradients.token])
    return (gradients if isinstance(gradients, Tensor) else gradients.dense()) * scale.flatten()
