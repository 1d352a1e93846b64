"""Inner products of embedding gradients, token by token: the sparse counterpart of a matrix product.

Two rows meet only in tokens that both contain, so V G^T = sum over tokens t of V_t G_t^T, where V_t [a, d] and
G_t [b, d] are the gradients of the rows that contain t. Nothing of the size of the vocabulary is ever formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from thresher.gradients.rows import TokenGradients
from thresher.gradients.store import Side
from thresher.influences.pairing import Pairing

TOP_TOKENS = 10
PART_BYTES = 512 * 2**20


class TokenPairing(Pairing):
    """An embedding, whose gradients are kept by token and met in ranges of tokens that fit in memory."""

    def products(self, first: Side, second: Side) -> Tensor:
        """Inner products of the rows of two sides, [rows of first, rows of second]."""
        return self._match[0] if (first, second) == ("query", "train") else self._meet(first, second)[0]

    @property
    def top_token_dots(self) -> Tensor:
        """V G^T over the tokens that both rows keep of their own ten largest, [Q, N]."""
        return self._match[1]

    def through_train(self, weights: Tensor) -> Tensor:
        """W G G^T as a sum over tokens of (W_t G_t) G_t^T."""
        by_row = weights.T.contiguous()  # [N, Q]
        result = torch.zeros_like(by_row)
        for entries in self._parts("train"):
            add_through(by_row, entries, result)
        return result.T

    @cached_property
    def _match(self) -> tuple[Tensor, Tensor]:
        return self._meet("query", "train")

    def _meet(self, first: Side, second: Side) -> tuple[Tensor, Tensor]:
        shape = (self.store.count(first), self.store.count(second))
        dots, kept_dots = torch.zeros(shape), torch.zeros(shape)
        for some, others in zip(self._parts(first), self._parts(second), strict=True):
            add_matched(some, others, dots, kept_dots)
        return dots, kept_dots

    def _parts(self, side: Side) -> Iterator[ByToken]:
        """One side's entries, a range of tokens after another; all of them at once where they fit."""
        if len(self._ranges) == 1:
            if side not in self._whole:
                self._whole[side] = self._part(side, *self._ranges[0])
            yield self._whole[side]
        else:
            for low, high in self._ranges:
                yield self._part(side, low, high)

    @cached_property
    def _whole(self) -> dict[Side, ByToken]:
        return {}

    @cached_property
    def _ranges(self) -> list[tuple[int, int]]:
        """Ranges of tokens whose entries, both sides together, take at most about ``PART_BYTES``."""
        width, counts = 1, np.zeros(1, dtype=np.int64)
        for _, gradients in [*self._entries("query"), *self._entries("train")]:
            width = gradients.value.shape[-1]
            found = np.bincount(gradients.token.numpy(), minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        part = (counts.cumsum() - counts) * (4 * width + 16) // PART_BYTES
        edges = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(counts)]
        return list(pairwise(edges))

    def _part(self, side: Side, low: int, high: int) -> ByToken:
        """Entries of one side with low <= token < high, rows numbered as in the data."""
        found: list[tuple[Tensor, ...]] = []
        for rows, gradients in self._entries(side):
            inside = (gradients.token >= low) & (gradients.token < high)
            kept = largest_entries(gradients, TOP_TOKENS)[inside]
            row = torch.from_numpy(rows)[gradients.row[inside]]
            found.append((row, gradients.token[inside], gradients.value[inside], kept))
        row, token, value, kept = (torch.cat(column) for column in zip(*found, strict=True))
        return by_token(TokenGradients(row=row, token=token, value=value, rows=self.store.count(side)), kept)

    def _entries(self, side: Side) -> Iterator[tuple[np.ndarray, TokenGradients]]:
        for rows, gradients in self.store.blocks(side, self.module):
            if isinstance(gradients, TokenGradients):
                yield rows, gradients


@dataclass(frozen=True)
class ByToken:
    """Entries of embedding gradients sorted by token: token ``tokens[k]`` has the entries starts[k] to starts[k+1]."""

    row: Tensor
    value: Tensor
    kept: Tensor
    tokens: Tensor
    starts: list[int]


def by_token(gradients: TokenGradients, kept: Tensor) -> ByToken:
    """Sort entries by token; ``kept`` [K] bool goes along."""
    order = torch.argsort(gradients.token, stable=True)
    tokens, counts = torch.unique_consecutive(gradients.token[order], return_counts=True)
    starts = [0, *counts.cumsum(0).tolist()]
    return ByToken(gradients.row[order], gradients.value[order], kept[order], tokens, starts)


def add_matched(query: ByToken, train: ByToken, dots: Tensor, kept_dots: Tensor) -> None:
    """Add V G^T to ``dots`` [Q, N], and its part over entries that both sides keep to ``kept_dots`` [Q, N]."""
    width = dots.shape[1]
    flat, kept_flat = dots.view(-1), kept_dots.view(-1)
    for q, t in _common(query, train):
        shared = (query.value[q] @ train.value[t].T).flatten()  # [a * b]
        cells = (query.row[q][:, None] * width + train.row[t]).flatten()
        flat.index_add_(0, cells, shared)
        kept = (query.kept[q][:, None] & train.kept[t]).flatten()
        kept_flat.index_add_(0, cells[kept], shared[kept])


def add_through(weights: Tensor, train: ByToken, result: Tensor) -> None:
    """Add G G^T W to ``result`` [N, Q] for W [N, Q], one token after another; rows lie outermost to be gathered."""
    queries, width = weights.shape[1], train.value.shape[1]
    single = torch.tensor(train.starts).diff() == 1
    alone = torch.tensor(train.starts[:-1])[single]  # entries whose token no other row has: G_t G_t^T is a number
    rows = train.row[alone]
    result.index_add_(0, rows, weights[rows] * train.value[alone].square().sum(-1, keepdim=True))
    for k in (~single).nonzero()[:, 0].tolist():
        entries = slice(train.starts[k], train.starts[k + 1])
        rows, value = train.row[entries], train.value[entries]  # [b], [b, d]
        if len(rows) * (width + queries) < 2 * width * queries:  # whichever order multiplies less
            added = (value @ value.T) @ weights[rows]
        else:
            added = value @ (value.T @ weights[rows])
        result.index_add_(0, rows, added)


def largest_entries(gradients: TokenGradients, count: int) -> Tensor:
    """Mark, in every row, the ``count`` tokens whose gradients have the largest norm, [K] bool."""
    norms = gradients.value.square().sum(-1)
    order = torch.argsort(norms, descending=True, stable=True)
    order = order[torch.argsort(gradients.row[order], stable=True)]  # by row, the largest first
    entries = torch.bincount(gradients.row, minlength=gradients.rows)
    first = torch.repeat_interleave(entries.cumsum(0) - entries, entries)
    kept = torch.zeros(len(norms), dtype=torch.bool)
    kept[order[torch.arange(len(norms)) - first < count]] = True
    return kept


def _common(query: ByToken, train: ByToken) -> Iterator[tuple[slice, slice]]:
    """The entries on both sides of every token that both have."""
    place = torch.searchsorted(train.tokens, query.tokens).clamp_max(max(len(train.tokens) - 1, 0))
    if len(train.tokens) == 0:
        return
    for k in (train.tokens[place] == query.tokens).nonzero()[:, 0].tolist():
        j = int(place[k])
        yield slice(query.starts[k], query.starts[k + 1]), slice(train.starts[j], train.starts[j + 1])
