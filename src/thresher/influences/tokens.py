"""Inner products of embedding gradients, token by token: the sparse counterpart of a matrix product.

Two rows meet only in tokens that both contain, so V G^T = sum over tokens t of V_t G_t^T, where V_t [a, d] and
G_t [b, d] are the gradients of the rows that contain t. Nothing of the size of the vocabulary is ever formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from thresher.gradients.rows import TokenGradients


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
