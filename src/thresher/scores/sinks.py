"""What is made of influences as they come and kept of each row: its scores, the queries it hurts and helps most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thresher.arrays import Flags, Floats
from thresher.influences.driver import Matrices, Met, Part, Sink
from thresher.influences.registry import INFLUENCE
from thresher.model.names import ModuleName, in_group
from thresher.scores.aggregate import (
    Columns,
    Order,
    column_sums,
    correct_or_all,
    order_columns,
    refuse_nan,
    votes_against,
)
from thresher.scores.names import Configuration
from thresher.scores.table import available, groups_of, typical_size
from thresher.tensors import Shelf, read_tensors, write_tensors

MOST = 3
"""Queries that are kept of a row: so many that it hurts most, and so many that it helps most."""


class ScoreSink:
    """Scores of every configuration, larger = helpful.

    Each module's columns are ranked once, and its sums serve every group it belongs to and every k.
    """

    def __init__(
        self, modules: Sequence[ModuleName], methods: Sequence[str], ks: Sequence[float], shelf: Shelf
    ) -> None:
        self._configurations, self._ks, self._shelf = available(modules, methods, ks), ks, shelf
        self._places = _places(modules, methods)
        self._there: list[Configuration] = []
        self._sums: dict[tuple[str, str], Columns] = {}
        self._orders: dict[tuple[str, int], Order] = {}

    def open(self, correct: Flags, parts: Sequence[Part]) -> None:
        """Begin with the queries that rank, and count the rows that a column votes against."""
        self._ranked = correct_or_all(correct)
        self._votes = {k: votes_against(k, len(parts[0].rows)) for k in self._ks}
        self._more = len(parts) > 1

    def add(self, part: Part, number: int, values: Matrices) -> None:
        """Add up one module's columns."""
        for method, matrix in values.items():
            if not np.isnan(matrix).all():
                refuse_nan(matrix)
                sums = column_sums(matrix, self._order(part, method, number, matrix), list(self._votes.values()))
                for place in self._places[method, number]:
                    self._sums[place] = self._sums[place] + sums if place in self._sums else sums

    def close(self, part: Part) -> dict[str, Tensor]:
        """Give the part's scores."""
        self._there = [one for one in self._configurations if (one.influence, one.group) in self._sums]
        scores = [
            self._sums[one.influence, one.group].score(one.aggregation, None if one.k is None else self._votes[one.k])
            for one in self._there
        ]
        self._sums = {}
        return {"scores": torch.from_numpy(np.stack(scores, axis=1))}

    def read(self, met: Met) -> dict[Configuration, Floats]:
        """The scores of all rows, [N] each."""
        return dict(zip(self._there, np.ascontiguousarray(met.of_rows("scores").T), strict=True))

    def _order(self, part: Part, method: str, number: int, matrix: npt.NDArray[np.float32]) -> Order:
        if part.number > 0:
            return self._orders[method, number]
        order = order_columns(matrix, self._ranked)
        if self._more:
            self._orders[method, number] = Order(order.chosen, self._shelf.put(torch.from_numpy(order.values)).numpy())
        return order


class QuerySink:
    """For each function that tells queries apart, and each group of modules, the queries most hurt and helped.

    As :func:`thresher.scores.table.query_influence` has it: the mean over modules, each scaled by its typical size.
    """

    def __init__(self, modules: Sequence[ModuleName], methods: Sequence[str]) -> None:
        methods = [method for method in methods if not INFLUENCE[method].alike]
        self._places = _places(modules, methods)
        self.places = list(dict.fromkeys(place for places in self._places.values() for place in places))
        self._totals: dict[tuple[str, str], npt.NDArray[np.float32]] = {}
        self._telling: dict[tuple[str, str], int] = {}
        self._sizes: dict[tuple[str, int], float] = {}

    def open(self, correct: Flags, parts: Sequence[Part]) -> None:
        """Begin."""

    def add(self, part: Part, number: int, values: Matrices) -> None:
        """Add up what one module says of every query."""
        for method, matrix in values.items():
            if part.number == 0:
                self._sizes[method, number] = typical_size(matrix)
            size = self._sizes[method, number]
            for place in self._places.get((method, number), ()) if size > 0 else ():
                before, scaled = self._totals.get(place), matrix / np.float32(size)
                self._totals[place] = scaled if before is None else before + scaled
                self._telling[place] = self._telling.get(place, 0) + 1

    def close(self, part: Part) -> dict[str, Tensor]:
        """Give the part's queries, those it hurts most first, then those it helps most, and its influence on them."""
        queries: list[npt.NDArray[np.signedinteger[Any]]] = []
        sizes: list[npt.NDArray[np.float16]] = []
        for place in self.places:
            if place in self._totals:
                mean = self._totals[place] / self._telling[place]
                order = np.argsort(mean, axis=0, kind="stable")
                few = np.concatenate([order[:MOST], order[::-1][:MOST]])
                queries.append(few.T.astype(np.min_scalar_type(-len(mean))))
                sizes.append(np.take_along_axis(mean, few, axis=0).T.astype(np.float16))
        self.places = [place for place in self.places if place in self._totals]
        self._totals, self._telling = {}, {}
        found = {"queries": np.stack(queries, axis=1), "influences": np.stack(sizes, axis=1)} if queries else {}
        return {name: torch.from_numpy(values) for name, values in found.items()}

    def write(self, met: Met, target: Path) -> None:
        """Write the queries of all rows, [N, places, 2 MOST], with the places in the notes."""
        kept = {name: torch.from_numpy(met.of_rows(name)) for name in ("queries", "influences")} if self.places else {}
        write_tensors(target, kept, self.places)


def read_queries(source: Path, one: Configuration, rows: Sequence[int]) -> list[list[int]]:
    """The queries that rows hurt most by the score's influence and group, of the most hurt first."""
    tensors, places = read_tensors(source)
    if [one.influence, one.group] not in places:
        return [[] for _ in rows]
    return tensors["queries"][list(rows), places.index([one.influence, one.group]), :MOST].tolist()


class Sinks:
    """Several sinks as one."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def open(self, correct: Flags, parts: Sequence[Part]) -> None:
        """Begin with each."""
        for sink in self._sinks:
            sink.open(correct, parts)

    def add(self, part: Part, number: int, values: Matrices) -> None:
        """Give each the same."""
        for sink in self._sinks:
            sink.add(part, number, values)

    def close(self, part: Part) -> dict[str, Tensor]:
        """Give what each keeps."""
        return {name: kept for sink in self._sinks for name, kept in sink.close(part).items()}


def _places(modules: Sequence[ModuleName], methods: Sequence[str]) -> dict[tuple[str, int], list[tuple[str, str]]]:
    """For each function and number of a module, the function with each group that the module belongs to."""
    groups = {method: groups_of(modules, method) for method in methods}
    return {
        (method, number): [(method, group) for group in groups[method] if in_group(module, group)]
        for method in methods
        for number, module in enumerate(modules)
    }
