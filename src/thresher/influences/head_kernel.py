"""The head kernel: TracIn on the last linear layer without a backward pass.

The gradient of a row's loss for the matrix of y = W h is sum_t (p_t - e_t) h_t^T, so an inner product of two is
sum_{t, t'} (p_t - e_t) . (p_t' - e_t') * h_t . h_t', with p the softmax and e the one-hot label. A classifier has one
term a row; a language model one a pair of answer tokens (Yeh et al. 2018, representer points; Pruthi et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from thresher.gradients.rows import CHUNK_BYTES, HeadRows, RowGradients
from thresher.influences.pairing import Combination, Pairing, Side


def head_kernel(pair: Pairing) -> Tensor:
    """I[j, i] = sum_{t, t'} (p_t - e_t) . (p_t' - e_t') h_t . h_t' over tokens t of j and t' of i, [Q, N]."""
    return pair.dots


class LanguageHeadPairing(Pairing):
    """The output matrix W of a language model: p - e is computed from hidden states a few tokens at a time."""

    @property
    def _head(self) -> tuple[Tensor, Tensor | None]:
        store = self.stores["query"]
        assert store.head is not None
        weight, bias = store.head
        return weight.to(store.device), None if bias is None else bias.to(store.device)

    def products(self, first: Side, second: Side) -> Tensor:
        """Inner products of the rows of two sides, [rows of first, rows of second]."""
        stores = self.stores[first], self.stores[second]
        result = torch.zeros(*map(len, stores), device=stores[0].device)
        for rows, a, residual in self._chunks(first):
            for columns, b, other in self._chunks(second):
                pairs = (residual @ other.T).mul_(a.hidden @ b.hidden.T)  # [tokens of a, tokens of b]
                by_column = pairs.new_zeros(len(pairs), b.rows).index_add_(1, b.row, pairs)
                whole = pairs.new_zeros(a.rows, b.rows).index_add_(0, a.row, by_column)
                result[rows[:, None], columns] += whole
        return result

    def along(self, combination: Combination) -> Tensor:
        """W R G^T through R G^T, [Q, N]."""
        return combination.weights @ self.gram

    def _squares(self, gradients: RowGradients) -> Tensor:
        assert isinstance(gradients, HeadRows)
        squares = torch.empty(gradients.rows, device=gradients.row.device)
        for row in range(gradients.rows):
            one = gradients.between(row, row + 1)
            residual = self._residual(one)
            squares[row] = ((residual @ residual.T) * (one.hidden @ one.hidden.T)).sum()
        return squares

    def _chunks(self, side: Side) -> Iterator[tuple[Tensor, HeadRows, Tensor]]:
        tokens = max(1, 4 * CHUNK_BYTES // (4 * len(self._head[0])))
        for rows, block in self.stores[side].blocks(self.module):
            assert isinstance(block, HeadRows)
            for low, high in _row_ranges(block, tokens):
                part = block.between(low, high)
                yield torch.from_numpy(rows[low:high]), part, self._residual(part)

    def _residual(self, part: HeadRows) -> Tensor:
        """weight (softmax(W h + b) - onehot(label)), [K, V]."""
        scores = torch.nn.functional.linear(part.hidden, *self._head)
        residual = scores.softmax(-1)
        residual[torch.arange(len(part.label), device=part.label.device), part.label] -= 1
        return residual.mul_(part.weight[:, None])


def _row_ranges(block: HeadRows, tokens: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows that hold about ``tokens`` entries each."""
    ends = torch.bincount(block.row, minlength=block.rows).cumsum(0)
    part = ((ends - 1).clamp_min(0) // tokens).tolist()
    low = 0
    for row in range(1, block.rows + 1):
        if row == block.rows or part[row] != part[low]:
            yield low, row
            low = row
