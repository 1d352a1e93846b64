"""Gradients of some rows of data with respect to one module, in the form that is smallest for it.

Dense [rows, p] tensors; :class:`TokenGradients` for embeddings, which a row touches in a few tokens;
:class:`FactoredGradients` for large matrices, whose gradient is a sum of few outer products; :class:`HeadRows` for the
output matrix of a language model, whose outer products follow from hidden states alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
E = TypeVar("E", bound="Entries")


@dataclass(frozen=True)
class Entries:
    """Gradients kept as K entries, each belonging to a row: ``row`` [K] int64, ascending; ``rows`` counts the rows of
    data, which may include some without any entry."""

    row: Tensor
    rows: int

    @classmethod
    def parts(cls) -> tuple[str, ...]:
        """Names of the tensors [K, ...] that the entries are made of."""
        return tuple(field.name for field in fields(cls) if field.name != "rows")

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {name: getattr(self, name) for name in self.parts()}

    def map_tensors(self: E, change: Callable[[Tensor], Tensor]) -> E:
        """The same entries with every tensor changed."""
        return type(self)(rows=self.rows, **{name: change(tensor) for name, tensor in self.tensors().items()})

    def per_row(self, amounts: Tensor) -> Tensor:
        """Sum an amount [K, ...] an entry over the entries of each row, [rows, ...]."""
        total = torch.zeros(self.rows, *amounts.shape[1:], dtype=amounts.dtype, device=amounts.device)
        return total.index_add_(0, self.row, amounts)

    def between(self: E, low: int, high: int) -> E:
        """The rows from ``low`` up to but not including ``high``, numbered from 0."""
        start, stop = torch.searchsorted(self.row, torch.tensor([low, high], device=self.row.device)).tolist()
        found = {name: tensor[start:stop] for name, tensor in self.tensors().items()}
        return type(self)(rows=high - low, **(found | {"row": found["row"] - low}))

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(tensor.nbytes for tensor in self.tensors().values())


@dataclass(frozen=True)
class TokenGradients(Entries):
    """Gradients of an embedding: only the tokens that a row contains, each (row, token) once.

    ``row`` and ``token`` are [K] int64, sorted by row, then token; ``value`` is [K, d] float32.
    """

    token: Tensor
    value: Tensor

    def squared_norms(self) -> Tensor:
        """Squared norm of every row's gradient, [rows] float32."""
        return self.per_row(self.value.square().sum(-1))

    def entry_sums(self) -> Tensor:
        """Sum of every row's gradient over its coordinates, [rows]."""
        return self.per_row(self.value.sum(-1))


@dataclass(frozen=True)
class FactoredGradients(Entries):
    """Gradients of a matrix as sums of outer products: row i's is the sum over its entries of left right^T.

    ``left`` is [K, a], ``right`` [K, b], float32; a dense gradient would be [rows, a * b].
    """

    left: Tensor
    right: Tensor

    @property
    def size(self) -> int:
        """Coordinates of the dense gradient, a * b."""
        return self.left.shape[1] * self.right.shape[1]

    def dense(self) -> Tensor:
        """All rows multiplied out, [rows, a * b]."""
        left, right = self.padded()
        return (left.mT @ right).flatten(1)

    def squared_norms(self) -> Tensor:
        """Squared norm of every row's gradient, [rows]: sum over its pairs of entries of (l . l')(r . r')."""
        left, right = self.padded()
        return ((left @ left.mT) * (right @ right.mT)).sum((1, 2))

    def entry_sums(self) -> Tensor:
        """Sum of every row's gradient over its coordinates, [rows]."""
        return self.per_row(self.left.sum(-1) * self.right.sum(-1))

    def padded(self) -> tuple[Tensor, Tensor]:
        """Both factors, each row's entries side by side and then zeros, [rows, T, a] and [rows, T, b]."""
        counts = torch.bincount(self.row, minlength=self.rows)
        place = torch.arange(len(self.row), device=self.row.device) - (counts.cumsum(0) - counts)[self.row]
        longest = int(counts.max()) if len(counts) else 0
        sides: list[Tensor] = []
        for factor in (self.left, self.right):
            side = torch.zeros(self.rows, longest, factor.shape[1], dtype=factor.dtype, device=factor.device)
            side[self.row, place] = factor
            sides.append(side)
        return sides[0], sides[1]


@dataclass(frozen=True)
class HeadRows(Entries):
    """A language model's output matrix: one entry an answer token, from which its gradient follows without a backward
    pass as weight (softmax(W hidden + b) - onehot(label)) hidden^T.

    ``label`` [K] int64 is the token to be said, ``weight`` [K] its share in the row's loss, ``hidden`` [K, d] what goes
    into the matrix.
    """

    label: Tensor
    weight: Tensor
    hidden: Tensor


RowGradients = Tensor | TokenGradients | FactoredGradients | HeadRows
"""One module's gradients: a dense [rows, p] float32 tensor, or entries."""

ENTRY_FORMS: tuple[type[TokenGradients] | type[FactoredGradients] | type[HeadRows], ...] = (
    TokenGradients,
    FactoredGradients,
    HeadRows,
)


def token_gradients(row: Tensor, token: Tensor, value: Tensor, rows: int) -> TokenGradients:
    """Sum entries of the same (row, token) and sort them. ``row``, ``token`` [K]; ``value`` [K, d]."""
    width = int(token.max()) + 1 if len(token) else 1
    keys, place = torch.unique(row * width + token, return_inverse=True)
    total = torch.zeros(len(keys), value.shape[-1], dtype=value.dtype, device=value.device)
    total.index_add_(0, place, value)
    return TokenGradients(row=keys // width, token=keys % width, value=total, rows=rows)


def on_device(gradients: RowGradients, device: torch.device) -> RowGradients:
    """The same numbers there."""
    if isinstance(gradients, Tensor):
        return gradients.to(device)
    return gradients.map_tensors(lambda tensor: tensor.to(device))


def squared_norms(gradients: RowGradients) -> Tensor:
    """Squared norm of each row's gradient, [rows]; of the hidden states for :class:`HeadRows`."""
    if isinstance(gradients, Tensor):
        return gradients.square().sum(-1)
    if isinstance(gradients, HeadRows):
        return gradients.per_row(gradients.hidden.square().sum(-1))
    return gradients.squared_norms()


def entry_sums(gradients: RowGradients) -> Tensor:
    """Sum of each row's gradient over its coordinates, [rows]."""
    if isinstance(gradients, HeadRows):
        raise TypeError("the gradient of a head of this form is never multiplied out")
    return gradients.sum(-1) if isinstance(gradients, Tensor) else gradients.entry_sums()


def dense_chunks(gradients: Tensor | FactoredGradients) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a matrix's gradients as dense [b, p] tensors of at most about ``CHUNK_BYTES``, with their place."""
    if isinstance(gradients, Tensor):
        yield slice(0, len(gradients)), gradients
        return
    each = max(1, CHUNK_BYTES // (4 * gradients.size))
    for low in range(0, gradients.rows, each):
        high = min(low + each, gradients.rows)
        yield slice(low, high), gradients.between(low, high).dense()


def added(first: RowGradients, second: RowGradients) -> RowGradients:
    """Sum of two contributions to the same module, as when a layer is called twice."""
    if isinstance(first, TokenGradients) and isinstance(second, TokenGradients):
        both = {name: torch.cat([tensor, second.tensors()[name]]) for name, tensor in first.tensors().items()}
        return token_gradients(both["row"], both["token"], both["value"], first.rows)
    if isinstance(first, FactoredGradients) and isinstance(second, FactoredGradients):
        order = torch.cat([first.row, second.row]).argsort(stable=True)
        both = {name: torch.cat([tensor, second.tensors()[name]])[order] for name, tensor in first.tensors().items()}
        return FactoredGradients(rows=first.rows, **both)
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first + second
    raise TypeError("a module is used both as an embedding and as a matrix")


def concatenate(blocks: Sequence[RowGradients]) -> RowGradients:
    """Blocks of rows one after another; all of one form."""
    if isinstance(blocks[0], Tensor):
        return torch.cat([block for block in blocks if isinstance(block, Tensor)])
    return _join([block for block in blocks if not isinstance(block, Tensor)])


def _join(blocks: Sequence[E]) -> E:
    starts = [0]
    for block in blocks:
        starts.append(starts[-1] + block.rows)
    tensors = {name: torch.cat([block.tensors()[name] for block in blocks]) for name in blocks[0].parts()}
    tensors["row"] = torch.cat([block.row + start for block, start in zip(blocks, starts, strict=False)])
    return type(blocks[0])(rows=starts[-1], **tensors)
