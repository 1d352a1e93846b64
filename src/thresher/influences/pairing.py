"""The two sides of one module, and the few products that every influence function is made of.

V [Q, p] holds the query rows' gradients, G [N, p] the training rows'. All of them (method.md 3) need V G^T, the
squared norms, W G G^T for some W [Q, N], or G G^T; each is computed once, a block of G at a time, and shared. They are
float32, their rows and columns in the order of the data. A module of hidden states has those in place of gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from thresher.errors import ConfigError
from thresher.gradients.rows import RowGradients, entry_sums, squared_norms
from thresher.gradients.store import GradientStore, Side

MOST_GRAM_ROWS = 30_000
"""Training rows up to which an n x n float32 matrix (3.4 GiB) is formed."""


class Pairing(ABC):
    """One module's query and train gradients; ``size`` is p."""

    def __init__(self, store: GradientStore, module: str, size: int) -> None:
        self.store, self.module, self.size = store, module, size
        self.queries, self.rows = store.count("query"), store.count("train")

    @cached_property
    def dots(self) -> Tensor:
        """V G^T, [Q, N]."""
        return self.products("query", "train")

    @cached_property
    def train_gram(self) -> Tensor:
        """G G^T, [N, N]. Raises :class:`ConfigError` for more than ``MOST_GRAM_ROWS`` rows."""
        refuse_gram(self.rows)
        return self.products("train", "train")

    @cached_property
    def query_gram(self) -> Tensor:
        """V V^T, [Q, Q]."""
        return self.products("query", "query")

    @abstractmethod
    def products(self, first: Side, second: Side) -> Tensor:
        """Inner products of the rows of two sides, [rows of first, rows of second]."""

    @abstractmethod
    def through_train(self, weights: Tensor) -> Tensor:
        """W G G^T for W [Q, N] without forming G G^T, [Q, N]."""

    def labels(self, side: Side) -> Tensor:
        """Class of every row of one side, [rows] int64; all 0 where rows have no class."""
        return self.store.labels[side]

    @cached_property
    def query_squares(self) -> Tensor:
        """Squared norms of V's rows, [Q]."""
        return self._of_rows("query", self._squares)

    @cached_property
    def train_squares(self) -> Tensor:
        """Squared norms of G's rows, [N]."""
        return self._of_rows("train", self._squares)

    def entry_sums(self, side: Side) -> Tensor:
        """Sum of every row's gradient over its coordinates, [rows]."""
        return self._of_rows(side, entry_sums)

    def _of_rows(self, side: Side, amount: Callable[[RowGradients], Tensor]) -> Tensor:
        """One number a row, [rows]: ``amount`` of every block, in the order of the data."""
        amounts = torch.empty(self.store.count(side))
        for rows, gradients in self.store.blocks(side, self.module):
            amounts[torch.from_numpy(rows)] = amount(gradients)
        return amounts

    def _squares(self, gradients: RowGradients) -> Tensor:
        return squared_norms(gradients)


def refuse_gram(rows: int, methods: Sequence[str] = ()) -> None:
    """Raise :class:`ConfigError` where the n x n matrix of the rows that ``methods`` need would be too large."""
    if rows > MOST_GRAM_ROWS:
        who = f"{' and '.join(methods)} need" if methods else "What is asked for needs"
        raise ConfigError(
            f"{who} a matrix of {rows:,} x {rows:,} numbers (at most {MOST_GRAM_ROWS:,} rows); leave "
            "them out of --methods, DataInf is made for many rows."
        )
