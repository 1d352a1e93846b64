"""Gradients of some rows of data with respect to one module: dense, or sparse for embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenGradients:
    """Gradients of an embedding: only the tokens that a row contains, each (row, token) once.

    ``row`` and ``token`` are [K] int64, sorted by row, then token; ``value`` is [K, d] float32; ``rows`` counts the
    rows of data, which may include some without any entry.
    """

    row: Tensor
    token: Tensor
    value: Tensor
    rows: int

    def squared_norms(self) -> Tensor:
        """Squared norm of every row's gradient, [rows] float32."""
        return self.per_row(self.value.square().sum(-1))

    def per_row(self, amounts: Tensor) -> Tensor:
        """Sum an amount [K] an entry over the entries of each row, [rows]."""
        return torch.zeros(self.rows, dtype=amounts.dtype, device=amounts.device).index_add_(0, self.row, amounts)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.row.nbytes + self.token.nbytes + self.value.nbytes


RowGradients = Tensor | TokenGradients
"""One module's gradients: a dense [rows, p] float32 tensor, or :class:`TokenGradients`."""


def token_gradients(row: Tensor, token: Tensor, value: Tensor, rows: int) -> TokenGradients:
    """Sum entries of the same (row, token) and sort them. ``row``, ``token`` [K]; ``value`` [K, d]."""
    width = int(token.max()) + 1 if len(token) else 1
    keys, place = torch.unique(row * width + token, return_inverse=True)
    total = torch.zeros(len(keys), value.shape[-1], dtype=value.dtype, device=value.device)
    total.index_add_(0, place, value)
    return TokenGradients(keys // width, keys % width, total, rows)


def squared_norms(gradients: RowGradients) -> Tensor:
    """Squared norm of each row's gradient, [rows]."""
    if isinstance(gradients, TokenGradients):
        return gradients.squared_norms()
    return gradients.square().sum(-1)


def added(first: RowGradients, second: RowGradients) -> RowGradients:
    """Sum of two contributions to the same module, as when a layer is called twice."""
    if isinstance(first, TokenGradients) and isinstance(second, TokenGradients):
        return token_gradients(
            torch.cat([first.row, second.row]),
            torch.cat([first.token, second.token]),
            torch.cat([first.value, second.value]),
            first.rows,
        )
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first + second
    raise TypeError("a module is used both as an embedding and as a matrix")


def concatenated(blocks: list[RowGradients]) -> RowGradients:
    """Blocks of rows one after another."""
    if isinstance(blocks[0], Tensor):
        return torch.cat([block for block in blocks if isinstance(block, Tensor)])
    tokens = [block for block in blocks if isinstance(block, TokenGradients)]
    starts = [0]
    for block in tokens:
        starts.append(starts[-1] + block.rows)
    return TokenGradients(
        torch.cat([block.row + start for block, start in zip(tokens, starts, strict=False)]),
        torch.cat([block.token for block in tokens]),
        torch.cat([block.value for block in tokens]),
        starts[-1],
    )
