"""The one way from rows to influence: statistics of reference rows, then every other row, a block at a time.

The reference is a fixed sample of the training rows, or all of them. The gradients of queries and reference are kept
while they are needed; a :class:`Sink` is handed the influences of the reference rows module by module, and what they
fit (:mod:`thresher.influences.pairing`) serves all other rows, whose gradients are met and forgotten block by block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from thresher.arrays import Flags, Indices
from thresher.data.encode import EncodedRows
from thresher.errors import ConfigError
from thresher.gradients.collect import Rows, batch_rows, collect, pass_block, plan_blocks
from thresher.gradients.gradient_pass import gradient_pass
from thresher.gradients.hooks import BatchGradients, GradientPass
from thresher.gradients.store import GradientStore
from thresher.influences.checkpoints import SUMMED, CheckpointSums
from thresher.influences.modules import MEMORY, GradientPlan
from thresher.influences.pairing import Pairing
from thresher.influences.pairings import pairing
from thresher.influences.registry import InfluenceFunction
from thresher.model.checkpoints import Checkpoint, refuse_unfit
from thresher.model.losses import correct_rows
from thresher.model.names import ModuleName
from thresher.progress import Progress
from thresher.tensors import Shelf

Matrices = dict[str, npt.NDArray[np.float32]]
"""One module's influences [Q, rows] by function, of those that are defined there."""


@dataclass(frozen=True)
class Work:
    """What is to meet: rows of a model, and by which functions; ``reference`` names the reference rows.

    ``multipliers`` scale the train gradients of some modules, entry by entry; ``checkpoints`` are those summed over.
    """

    model: nn.Module
    plan: GradientPlan
    query: EncodedRows
    train: EncodedRows
    functions: Mapping[str, InfluenceFunction]
    reference: Indices
    batch_size: int
    memory: int = MEMORY
    multipliers: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    checkpoints: Sequence[Checkpoint] = ()


@dataclass(frozen=True)
class Part:
    """Rows that are met together: ``number`` 0 are the reference rows, ``rows`` their places in the data."""

    number: int
    rows: Indices


class Sink(Protocol):
    """Where influences go."""

    def open(self, correct: Flags, parts: Sequence[Part]) -> None:
        """Begin: which queries [Q] the model gets right, and the parts in which rows will come."""
        ...

    def add(self, part: Part, number: int, values: Matrices) -> None:
        """Take the influences of a part's rows on one module, of which each comes once, in order."""
        ...

    def close(self, part: Part) -> dict[str, Tensor]:
        """Give what is to be kept of a part whose modules have all come, a line a row: [rows, ...] by name.

        The reference rows are added whenever a killed run goes on, since others need what they fit; other parts once.
        """
        ...


@dataclass(frozen=True)
class Met:
    """What was kept of all training rows in ``parts``, and what the model says of both sides."""

    query: GradientStore
    reference: GradientStore
    parts: GradientStore
    sums: CheckpointSums | None

    def of_rows(self, name: str) -> npt.NDArray[Any]:
        """What the sink kept by this name, [N, ...] in the order of the data."""
        found: npt.NDArray[Any] | None = None
        for rows, kept in self.parts.blocks(name):
            assert isinstance(kept, Tensor)
            values = kept.numpy()
            found = np.empty((len(self.parts), *values.shape[1:]), values.dtype) if found is None else found
            found[rows] = values
        assert found is not None
        return found

    def close(self) -> None:
        """Forget everything, on disk too."""
        for store in (self.query, self.reference, self.parts, *filter(None, [self.sums])):
            store.close()


def draw_reference(rows: int, count: int | None, functions: Iterable[InfluenceFunction], seed: int) -> Indices:
    """The reference rows: ``count`` of them, drawn by the seed, in the data's order.

    All of them where there are no more, or where a function needs G G^T: the inverse of a matrix to which a row itself
    has contributed is no measure for rows that have not.
    """
    if count is None or rows <= count or any(function.gram for function in functions):
        return np.arange(rows)
    return np.sort(np.random.default_rng([seed, 17]).choice(rows, count, replace=False))


def drive(work: Work, sink: Sink, progress: Progress, folder: Path | None = None) -> Met:
    """Hand the influence of every training row on every query to the sink; the model comes back as it was.

    What is finished in ``folder`` is not computed again. Raises :class:`GradientError` naming rows whose loss or
    gradient is not finite, :class:`ConfigError` for a function that gives something else than it should.
    """
    if SUMMED in work.functions:
        refuse_unfit(work.model, work.checkpoints)  # while the model still says what was trained
    batch_size = batch_rows(work.batch_size, work.plan.row_bytes)
    others = np.setdiff1d(np.arange(len(work.train)), work.reference)
    blocks = plan_blocks(work.train.lengths[others], batch_size, work.plan.row_bytes) if len(others) else []
    parts = [Part(number, rows) for number, rows in enumerate([work.reference, *(others[block] for block in blocks)])]
    with (
        gradient_pass(work.model, work.plan.names, work.query, work.train, forms=work.plan.forms) as one_pass,
        closing(Shelf(work.memory // 4, folder)) as shelf,
    ):
        run = _Run(work, one_pass, batch_size, folder, progress)
        stores = run.gather()
        kept = GradientStore([part.rows for part in parts], 0 if folder else work.memory, run.place("parts"))
        met = Met(*stores, kept, run.sums)
        outputs = met.query.predictions()[1]
        sink.open(correct_rows(outputs, work.query.labels, work.model.config).numpy(), parts)
        pairs = run.meet_reference(sink, parts[0], met, shelf if len(parts) > 1 else None)
        run.meet_others(sink, parts[1:], met, pairs)
    return met


class _Run:
    """One call of :func:`drive`."""

    def __init__(
        self, work: Work, one_pass: GradientPass, batch_size: int, folder: Path | None, progress: Progress
    ) -> None:
        self.work, self.one_pass, self.batch_size = work, one_pass, batch_size
        self.folder, self.progress = folder, progress
        self.query = Rows(work.query, "query")
        self.train = Rows(work.train, "train", scales=work.multipliers)
        self.sums: CheckpointSums | None = None
        if SUMMED in work.functions:
            self.sums = CheckpointSums(work.model, work.plan.weights.modules, work.checkpoints, one_pass, batch_size)

    def place(self, name: str) -> Path | None:
        """Where blocks of this kind lie."""
        return self.folder and self.folder / name

    def gather(self) -> tuple[GradientStore, GradientStore]:
        """The gradients of queries and reference rows."""
        reference = self.train.take(self.work.reference)
        if self.sums is not None:
            self.sums.gather(self.query, reference, self.store, self.progress)
        query = self.store(self.query, "query", self.work.memory)
        collect(self.one_pass, query, self.query, self.batch_size, self.progress)
        train = self.store(reference, "reference", query.free)
        collect(self.one_pass, train, reference, self.batch_size, self.progress)
        return query, train

    def store(self, rows: Rows, name: str, memory: int) -> GradientStore:
        """An empty store for rows, or what an earlier call put into it."""
        blocks = plan_blocks(rows.data.lengths, self.batch_size, self.work.plan.row_bytes)
        return self._fitted(GradientStore(blocks, memory, self.place(name)), rows)

    def meet_reference(self, sink: Sink, part: Part, met: Met, shelf: Shelf | None) -> list[Pairing]:
        """Add the reference rows; the pairings with what they fit, where there is a ``shelf`` for it."""
        modules, pairs = self.work.plan.modules, list[Pairing]()
        with self.progress.stage("influence of modules", len(modules)) as advance:
            for number, module in enumerate(modules):
                pair = pairing(met.query, met.reference, module.name, module.size, shelf)
                summed = self.sums and self.sums.of_reference(module)
                sink.add(part, number, module_matrices(pair, module, self.work.functions, summed))
                if shelf is not None:
                    pair.settle()
                    pairs.append(pair)
                advance(1)
        met.parts.put(0, BatchGradients(dict(sink.close(part)), *met.reference.predictions()))
        return pairs

    def meet_others(self, sink: Sink, parts: Sequence[Part], met: Met, pairs: Sequence[Pairing]) -> None:
        """Add every other part that is not finished."""
        with self.progress.stage("influence of train rows", sum(len(part.rows) for part in parts)) as advance:
            for part in parts:
                if not met.parts.has(part.number):
                    found = self._meet(sink, part, pairs)
                    met.parts.put(part.number, found)
                advance(len(part.rows))

    def _meet(self, sink: Sink, part: Part, pairs: Sequence[Pairing]) -> BatchGradients:
        sums = self.sums and self.sums.of_block(self.train, part.rows)
        found = pass_block(self.one_pass, self.train, part.rows, self.batch_size)
        block = GradientStore([np.arange(len(part.rows))], found.nbytes)
        block.put(0, found)
        self._fitted(block, self.train.take(part.rows))
        for number, (module, pair) in enumerate(zip(self.work.plan.modules, pairs, strict=True)):
            summed = sums.get(module.name) if sums else None
            matrices = module_matrices(pair.pair_with(block), module, self.work.functions, summed)
            sink.add(part, number, matrices)
        return BatchGradients(dict(sink.close(part)), found.losses, found.outputs)

    def _fitted(self, store: GradientStore, rows: Rows) -> GradientStore:
        """The store with what there is to know of its rows beside their gradients."""
        store.labels, store.device = rows.data.classes, self.one_pass.device
        if self.one_pass.head is not None and self.one_pass.head.generative:
            store.head = self.one_pass.head.matrix()
        return store


def module_matrices(
    pair: Pairing, module: ModuleName, functions: Mapping[str, InfluenceFunction], summed: Tensor | None = None
) -> Matrices:
    """One module's [Q, N] matrix for every function that is defined there; ``summed`` is that over checkpoints.

    Raises :class:`ConfigError` for a function that gives something else.
    """
    found: Matrices = {} if summed is None else {SUMMED: summed.cpu().numpy()}
    for name, function in functions.items():
        if function.compute is not None and function.defined_on(module):
            result = function.compute(pair)
            if result is not None:
                found[name] = _matrix(name, result, pair)
    return found


def _matrix(name: str, result: Any, pair: Pairing) -> npt.NDArray[np.float32]:
    wanted = (pair.queries, pair.rows)
    if not isinstance(result, torch.Tensor) or tuple(result.shape) != wanted:
        given = f"a tensor of {tuple(result.shape)}" if isinstance(result, torch.Tensor) else type(result).__name__
        raise ConfigError(
            f"The influence function '{name}' gives {given} on {pair.module}; a tensor of {wanted}, one number a query "
            "and training row, is needed."
        )
    return result.cpu().numpy()
