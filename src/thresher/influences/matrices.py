"""Matrices: a module whose gradients are dense, or sums of outer products."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from thresher.gradients.rows import CHUNK_BYTES, FactoredGradients, dense_chunks
from thresher.influences.pairing import MOST_GRAM_ROWS, Combination, Pairing, Side

Matrix = Tensor | FactoredGradients


class MatrixPairing(Pairing):
    """Products of dense blocks; factored ones are multiplied out, or met entry by entry, whichever costs less."""

    def products(self, first: Side, second: Side) -> Tensor:
        """Inner products of the rows of two sides, [rows of first, rows of second]."""
        stores = self.stores[first], self.stores[second]
        result = torch.empty(*map(len, stores), device=stores[0].device)
        for rows, a in self._blocks(first):
            for columns, b in self._blocks(second):
                result[rows[:, None], columns] = row_products(a, b)
        return result

    def along(self, combination: Combination) -> Tensor:
        """(W R) G^T, where W R took Q n p multiplications once; or W (R G^T) where entries are few."""
        if self.reference.gram_is_cheaper:
            return combination.weights @ self.gram
        if combination.sums is None:
            combination.sums = self.shelf.put(self.reference._sums(combination.weights))
        sums = combination.sums.to(self.stores["train"].device)
        result = sums.new_empty(len(sums), self.rows)
        for rows, g in self._dense("train"):
            result[:, rows] = sums @ g.T
        return result

    def _sums(self, weights: Tensor) -> Tensor:
        summed: Tensor | None = None
        for rows, g in self._dense("train"):
            part = weights[:, rows] @ g
            summed = part if summed is None else summed.add_(part)
        assert summed is not None
        return summed

    def second_moment(self) -> Tensor:
        """G^T G, [p, p] float64; p here is the number of coordinates that are kept."""
        total: Tensor | None = None
        for _, g in self._dense("train"):
            part = g.double().T @ g.double()
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def whole(self, side: Side) -> Tensor:
        """One side's gradients, [rows, p] float32: for small p."""
        parts = list(self._dense(side))
        result = parts[0][1].new_empty(len(self.stores[side]), parts[0][1].shape[1])
        for rows, g in parts:
            result[rows] = g
        return result

    def coordinates(self) -> int:
        """Numbers kept of a row's gradient, multiplied out: p, or fewer where it is projected."""
        first = next(self._blocks("train"))[1]
        return first.shape[1] if isinstance(first, Tensor) else first.size

    @cached_property
    def gram_is_cheaper(self) -> bool:
        """Whether W G G^T takes less by way of G G^T."""
        first = next(self._blocks("train"))[1]
        if not isinstance(first, FactoredGradients) or self.rows > MOST_GRAM_ROWS:
            return False  # before all blocks are read to count their entries
        entries = sum(len(g.row) for _, g in self._blocks("train") if isinstance(g, FactoredGradients))
        sides = first.left.shape[1] + first.right.shape[1]
        return entries**2 * sides < 2 * first.size * (entries + self.queries * self.rows)

    def _dense(self, side: Side) -> Iterator[tuple[Tensor, Tensor]]:
        for rows, gradients in self._blocks(side):
            for place, chunk in dense_chunks(gradients):
                yield rows[place], chunk

    def _blocks(self, side: Side) -> Iterator[tuple[Tensor, Matrix]]:
        for rows, gradients in self.stores[side].blocks(self.module):
            assert isinstance(gradients, Tensor | FactoredGradients)
            yield torch.from_numpy(rows), gradients


def row_products(a: Matrix, b: Matrix) -> Tensor:
    """Inner products of the rows of two blocks, [rows of a, rows of b]."""
    if isinstance(a, FactoredGradients) and isinstance(b, FactoredGradients) and _entrywise_is_cheaper(a, b):
        return _by_entries(a, b)
    result = torch.empty(_count(a), _count(b), device=_device(a))
    for rows, some in dense_chunks(a):
        for columns, others in dense_chunks(b):
            result[rows, columns] = some @ others.T
    return result


def _entrywise_is_cheaper(a: FactoredGradients, b: FactoredGradients) -> bool:
    pairs = len(a.row) * len(b.row) * (a.left.shape[1] + a.right.shape[1])
    return pairs < a.size * (len(a.row) + len(b.row) + a.rows * b.rows)


def _by_entries(a: FactoredGradients, b: FactoredGradients) -> Tensor:
    """sum over entries k of row i and k' of row j of (left_k . left_k')(right_k . right_k')."""
    result = torch.zeros(a.rows, b.rows, device=a.row.device)
    each = max(1, CHUNK_BYTES // (8 * max(1, len(b.row))))
    for start in range(0, len(a.row), each):
        some = slice(start, start + each)
        pairs = (a.left[some] @ b.left.T).mul_(a.right[some] @ b.right.T)  # [some, K of b]
        by_column = pairs.new_zeros(len(pairs), b.rows).index_add_(1, b.row, pairs)
        result.index_add_(0, a.row[some], by_column)
    return result


def _count(gradients: Matrix) -> int:
    return len(gradients) if isinstance(gradients, Tensor) else gradients.rows


def _device(gradients: Matrix) -> torch.device:
    return gradients.device if isinstance(gradients, Tensor) else gradients.row.device
