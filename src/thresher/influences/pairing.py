"""The two sides of one module, and the few products that every influence function is made of.

V [Q, p] holds the query rows' gradients, G [N, p] those of some training rows, R [n, p] those of the reference rows,
which stand for all of them. All influence functions (method.md 3) need V G^T, the squared norms, or W R G^T for some W
[Q, n] that is fitted to the reference rows; each is computed once, a block at a time, and shared. They are float32,
their rows and columns in the order of the data. A module of hidden states has those in place of gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self, TypeVar

import torch
from torch import Tensor

from thresher.errors import ConfigError
from thresher.gradients.rows import RowGradients, entry_sums, squared_norms
from thresher.gradients.store import GradientStore
from thresher.tensors import Shelf

MOST_GRAM_ROWS = 30_000
"""Reference rows up to which an n x n float32 matrix (3.4 GiB) is formed."""

Side = Literal["query", "train", "reference"]
T = TypeVar("T")


@dataclass
class Combination:
    """Sums of the reference rows' gradients, W R for ``weights`` W [Q, n]; ``sums`` are kept once they are formed."""

    weights: Tensor
    sums: Any = None


class Pairing(ABC):
    """One module's query and train gradients; ``size`` is p, ``queries`` Q and ``rows`` N.

    ``reference`` is the pairing of the queries with the reference rows: this one, where these are the rows. What hangs
    on more than the row itself is taken from there, in :meth:`fit`; other rows come some at a time.
    """

    def __init__(
        self,
        query: GradientStore,
        train: GradientStore,
        module: str,
        size: int,
        reference: Self | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.reference: Self = reference or self
        self.module, self.size = module, size
        self.stores: dict[Side, GradientStore] = {
            "query": query,
            "train": train,
            "reference": train if reference is None else reference.stores["train"],
        }
        self.queries, self.rows = len(query), len(train)
        self.shelf = shelf or Shelf()
        self._fitted: dict[Callable[..., Any], Any] = {}

    @cached_property
    def dots(self) -> Tensor:
        """V G^T, [Q, N]."""
        return self.products("query", "train")

    @cached_property
    def gram(self) -> Tensor:
        """R G^T, [n, N]. Raises :class:`ConfigError` for more than ``MOST_GRAM_ROWS`` reference rows."""
        refuse_gram(self.reference.rows)
        return self.products("reference", "train")

    @cached_property
    def query_gram(self) -> Tensor:
        """V V^T, [Q, Q]."""
        return self.products("query", "query")

    def fit(self, function: Callable[[Any], T]) -> T:
        """What ``function`` makes of the pairing of the reference rows; made once, and the same for all rows."""
        fitted = self.reference._fitted
        if function not in fitted:
            fitted[function] = function(self.reference)
        return fitted[function]

    @abstractmethod
    def products(self, first: Side, second: Side) -> Tensor:
        """Inner products of the rows of two sides, [rows of first, rows of second]."""

    @abstractmethod
    def along(self, combination: Combination) -> Tensor:
        """W R G^T for a combination made in :meth:`fit`, [Q, N]; R R^T is not formed unless that is cheaper."""

    def labels(self, side: Side) -> Tensor:
        """Class of every row of one side, [rows] int64; all 0 where rows have no class."""
        return self.stores[side].labels

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

    def pair_with(self, train: GradientStore) -> Self:
        """The same queries and reference rows with other rows."""
        other = type(self)(self.stores["query"], train, self.module, self.size, self.reference, self.shelf)
        for name in ("query_squares", "query_gram"):
            if name in vars(self.reference):
                vars(other)[name] = vars(self.reference)[name]
        return other

    def settle(self) -> None:
        """Forget what no other rows need, once the reference rows have been met."""
        for name in ("dots", "gram", "train_squares"):
            vars(self).pop(name, None)

    def _of_rows(self, side: Side, amount: Callable[[RowGradients], Tensor]) -> Tensor:
        """One number a row, [rows]: ``amount`` of every block, in the order of the data."""
        store = self.stores[side]
        amounts = torch.empty(len(store), device=store.device)
        for rows, gradients in store.blocks(self.module):
            amounts[torch.from_numpy(rows)] = amount(gradients)
        return amounts

    def _squares(self, gradients: RowGradients) -> Tensor:
        return squared_norms(gradients)


def refuse_gram(rows: int, methods: Sequence[str] = ()) -> None:
    """Raise :class:`ConfigError` where the n x n matrix that ``methods`` need would be too large."""
    if rows > MOST_GRAM_ROWS:
        who = f"{' and '.join(methods)} need" if methods else "What is asked for needs"
        raise ConfigError(
            f"{who} a matrix of {rows:,} x {rows:,} numbers (at most {MOST_GRAM_ROWS:,} rows); leave "
            "them out of --methods, DataInf is made for many rows."
        )
