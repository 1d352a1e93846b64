"""The two sides of one module, and the few products that every influence function is made of.

V [Q, p] holds the query rows' gradients, G [N, p] the training rows'. All functions of SPEC 3 need V G^T, the squared
norms, and W G G^T for some W [Q, N]; each is computed once, a block of G at a time, and shared. Matrices are float32,
their rows and columns in the order of the data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from thresher.gradients.rows import RowGradients, TokenGradients, squared_norms
from thresher.gradients.store import GradientStore, Side
from thresher.influences.tokens import ByToken, add_matched, add_through, by_token, largest_entries

TOP_TOKENS = 10
PART_BYTES = 512 * 2**20


class Pairing(ABC):
    """One module's query and train gradients; ``size`` is p."""

    def __init__(self, store: GradientStore, module: str, size: int, *, is_word_embedding: bool) -> None:
        self.store, self.module, self.size = store, module, size
        self.is_word_embedding = is_word_embedding
        self.queries, self.rows = store.count("query"), store.count("train")

    @cached_property
    def dots(self) -> Tensor:
        """V G^T, [Q, N]."""
        return self._dots()

    @abstractmethod
    def _dots(self) -> Tensor: ...

    @property
    @abstractmethod
    def top_token_dots(self) -> Tensor:
        """V G^T over the tokens that both rows keep of their own ten largest, [Q, N]; 0 for a matrix."""

    @abstractmethod
    def through_train(self, weights: Tensor) -> Tensor:
        """W G G^T for W [Q, N] without forming G G^T, [Q, N]."""

    @cached_property
    def query_squares(self) -> Tensor:
        """Squared norms of V's rows, [Q]."""
        return self._squares("query", self.queries)

    @cached_property
    def train_squares(self) -> Tensor:
        """Squared norms of G's rows, [N]."""
        return self._squares("train", self.rows)

    def _squares(self, side: Side, count: int) -> Tensor:
        squares = torch.empty(count)
        for rows, gradients in self.store.blocks(side, self.module):
            squares[torch.from_numpy(rows)] = squared_norms(gradients)
        return squares


class DensePairing(Pairing):
    """A module whose gradients are matrices."""

    def _dots(self) -> Tensor:
        products = torch.empty(self.queries, self.rows)
        for queries, v in self._matrices("query"):
            for rows, g in self._matrices("train"):
                products[queries[:, None], rows] = v @ g.T
        return products

    @property
    def top_token_dots(self) -> Tensor:
        """A matrix has no tokens."""
        return torch.zeros(self.queries, self.rows)

    def through_train(self, weights: Tensor) -> Tensor:
        """(W G) G^T in two sweeps over G: 2 Q N p multiplications."""
        summed = torch.zeros(len(weights), self.size)
        for rows, g in self._matrices("train"):
            summed += weights[:, rows] @ g
        result = torch.empty_like(weights)
        for rows, g in self._matrices("train"):
            result[:, rows] = summed @ g.T
        return result

    def _matrices(self, side: Side) -> Iterator[tuple[Tensor, Tensor]]:
        for rows, gradients in self.store.blocks(side, self.module):
            if isinstance(gradients, Tensor):
                yield torch.from_numpy(rows), gradients


class TokenPairing(Pairing):
    """An embedding, whose gradients are kept by token and met in ranges of tokens that fit in memory."""

    def _dots(self) -> Tensor:
        return self._matched[0]

    @property
    def top_token_dots(self) -> Tensor:
        """V G^T over the tokens that both rows keep of their own ten largest, [Q, N]."""
        return self._matched[1]

    def through_train(self, weights: Tensor) -> Tensor:
        """W G G^T as a sum over tokens of (W_t G_t) G_t^T."""
        by_row = weights.T.contiguous()  # [N, Q]
        result = torch.zeros_like(by_row)
        for entries in self._parts("train"):
            add_through(by_row, entries, result)
        return result.T

    @cached_property
    def _matched(self) -> tuple[Tensor, Tensor]:
        dots, kept_dots = torch.zeros(self.queries, self.rows), torch.zeros(self.queries, self.rows)
        for query, train in zip(self._parts("query"), self._parts("train"), strict=True):
            add_matched(query, train, dots, kept_dots)
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
        return by_token(TokenGradients(row, token, value, self.store.count(side)), kept)

    def _entries(self, side: Side) -> Iterator[tuple[np.ndarray, TokenGradients]]:
        for rows, gradients in self.store.blocks(side, self.module):
            if isinstance(gradients, TokenGradients):
                yield rows, gradients


def pairing(store: GradientStore, module: str, size: int, *, is_word_embedding: bool) -> Pairing:
    """The pairing that fits how the module's gradients are kept."""
    first: RowGradients = next(store.blocks("train", module))[1]
    kind = TokenPairing if isinstance(first, TokenGradients) else DensePairing
    return kind(store, module, size, is_word_embedding=is_word_embedding)
