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
from thresher.influences.pairing import Combination, Pairing, Side

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

    def along(self, combination: Combination) -> Tensor:
        """W R G^T as a sum over tokens of (W_t R_t) G_t^T."""
        sums: dict[int, Tensor] = {} if combination.sums is None else combination.sums
        combination.sums = sums
        by_row = combination.weights.T.contiguous()  # [n, Q]
        result = by_row.new_zeros(self.rows, self.queries)
        for reference, entries in zip(self._parts("reference"), self._parts("train"), strict=True):
            add_along(by_row, reference, entries, result, sums)
        return result.T

    def settle(self) -> None:
        """Forget what no other rows need, once the reference rows have been met."""
        super().settle()
        vars(self).pop("_match", None)

    @cached_property
    def _match(self) -> tuple[Tensor, Tensor]:
        return self._meet("query", "train")

    def _meet(self, first: Side, second: Side) -> tuple[Tensor, Tensor]:
        shape, device = (len(self.stores[first]), len(self.stores[second])), self.stores[first].device
        dots, kept_dots = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        for some, others in zip(self._parts(first), self._parts(second), strict=True):
            add_matched(some, others, dots, kept_dots)
        return dots, kept_dots

    def _parts(self, side: Side) -> Iterator[ByToken]:
        """One side's entries, a range of tokens after another; all of them at once where they fit."""
        if self is not self.reference and side != "train":
            yield from self.reference._parts("train" if side == "reference" else side)
        elif len(self._ranges) == 1:
            side = "train" if side == "reference" else side
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
        """Ranges of tokens whose entries, queries and reference together, take at most about ``PART_BYTES``."""
        if self is not self.reference:
            return self.reference._ranges  # a token that neither of them has meets nothing
        width, counts = 1, np.zeros(1, dtype=np.int64)
        for _, gradients in [*self._entries("query"), *self._entries("train")]:
            width = gradients.value.shape[-1]
            found = np.bincount(gradients.token.cpu().numpy(), minlength=len(counts))
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
            row = torch.from_numpy(rows).to(gradients.row.device)[gradients.row[inside]]
            found.append((row, gradients.token[inside], gradients.value[inside], kept))
        row, token, value, kept = (torch.cat(column) for column in zip(*found, strict=True))
        return by_token(TokenGradients(row=row, token=token, value=value, rows=len(self.stores[side])), kept)

    def _entries(self, side: Side) -> Iterator[tuple[np.ndarray, TokenGradients]]:
        for rows, gradients in self.stores[side].blocks(self.module):
            if isinstance(gradients, TokenGradients):
                yield rows, gradients


@dataclass(frozen=True)
class ByToken:
    """Entries of embedding gradients sorted by token: token ``tokens[k]`` has ``counts[k]`` from ``starts[k]`` on."""

    row: Tensor
    value: Tensor
    kept: Tensor
    tokens: Tensor
    counts: Tensor

    @cached_property
    def starts(self) -> Tensor:
        """Where each token's entries begin."""
        return self.counts.cumsum(0) - self.counts

    @cached_property
    def _edges(self) -> list[int]:
        return [0, *self.counts.cumsum(0).tolist()]

    def entries(self, token: int) -> slice:
        """The entries of the token at this place."""
        return slice(self._edges[token], self._edges[token + 1])


def by_token(gradients: TokenGradients, kept: Tensor) -> ByToken:
    """Sort entries by token; ``kept`` [K] bool goes along."""
    order = torch.argsort(gradients.token, stable=True)
    tokens, counts = torch.unique_consecutive(gradients.token[order], return_counts=True)
    return ByToken(gradients.row[order], gradients.value[order], kept[order], tokens, counts)


def add_matched(query: ByToken, train: ByToken, dots: Tensor, kept_dots: Tensor) -> None:
    """Add V G^T to ``dots`` [Q, N], and its part over entries that both sides keep to ``kept_dots`` [Q, N]."""
    width = dots.shape[1]
    flat, kept_flat = dots.view(-1), kept_dots.view(-1)
    for q, t in zip(*(both.tolist() for both in _common(query, train)), strict=True):
        mine, theirs = query.entries(q), train.entries(t)
        shared = (query.value[mine] @ train.value[theirs].T).flatten()  # [a * b]
        cells = (query.row[mine][:, None] * width + train.row[theirs]).flatten()
        flat.index_add_(0, cells, shared)
        kept = (query.kept[mine][:, None] & train.kept[theirs]).flatten()
        kept_flat.index_add_(0, cells[kept], shared[kept])


def add_along(weights: Tensor, reference: ByToken, train: ByToken, result: Tensor, sums: dict[int, Tensor]) -> None:
    """Add G R^T W to ``result`` [N, Q] for W [n, Q], one token after another; rows lie outermost to be gathered.

    ``sums`` keeps R_t^T W_t by token where that is the shorter way.
    """
    queries, width = weights.shape[1], train.value.shape[1]
    here, there = _common(train, reference)
    single = reference.counts[there] == 1  # of such a token R_t^T W_t is one row's value times its weights
    if single.any():
        of_token = torch.full_like(train.tokens, -1)
        of_token[here[single]] = reference.starts[there[single]]
        of_entry = of_token.repeat_interleave(train.counts)
        mine = (of_entry >= 0).nonzero()[:, 0]
        theirs = of_entry[mine]
        met = (train.value[mine] * reference.value[theirs]).sum(-1, keepdim=True)
        result.index_add_(0, train.row[mine], weights[reference.row[theirs]] * met)
    for k, j in zip(here[~single].tolist(), there[~single].tolist(), strict=True):
        mine, theirs = train.entries(k), reference.entries(j)
        rows, value, met = reference.row[theirs], reference.value[theirs], train.value[mine]  # [b], [b, d], [a, d]
        if len(rows) * (width + queries) < 2 * width * queries:  # whichever order multiplies less
            added = (met @ value.T) @ weights[rows]
        else:
            token = int(reference.tokens[j])
            if token not in sums:
                sums[token] = value.T @ weights[rows]
            added = met @ sums[token]
        result.index_add_(0, train.row[mine], added)


def largest_entries(gradients: TokenGradients, count: int) -> Tensor:
    """Mark, in every row, the ``count`` tokens whose gradients have the largest norm, [K] bool."""
    norms = gradients.value.square().sum(-1)
    order = torch.argsort(norms, descending=True, stable=True)
    order = order[torch.argsort(gradients.row[order], stable=True)]  # by row, the largest first
    entries = torch.bincount(gradients.row, minlength=gradients.rows)
    first = torch.repeat_interleave(entries.cumsum(0) - entries, entries)
    kept = torch.zeros(len(norms), dtype=torch.bool, device=norms.device)
    kept[order[torch.arange(len(norms), device=norms.device) - first < count]] = True
    return kept


def _common(first: ByToken, second: ByToken) -> tuple[Tensor, Tensor]:
    """The places, among the tokens of each, of those that both have."""
    if len(second.tokens) == 0:
        return first.tokens[:0], first.tokens[:0]
    place = torch.searchsorted(second.tokens, first.tokens).clamp_max(len(second.tokens) - 1)
    here = (second.tokens[place] == first.tokens).nonzero()[:, 0]
    return here, place[here]
