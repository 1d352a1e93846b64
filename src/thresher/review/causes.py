"""What suspicious rows share: which label stands for which, who labelled them, a column of the file, their subject.

One decision may then mend forty rows. A cause is known by its name, a kind and a value, and holds the rows that share
it; those whose rows are suspicious far more often than others come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from thresher.arrays import Flags, Floats
from thresher.data.table import Table
from thresher.results.decided import DecidedRun

FEWEST = 5
"""Rows that a cause has at least, and wrong ones that are expected among them."""

MOST_VALUES = 50
"""A column of the file that has more is no group of rows but a text, a number or a name."""


@dataclass(frozen=True)
class Cause:
    """``rows`` rows share it, of which about ``wrong`` are; ``name`` is what it is asked for by."""

    name: str
    rows: int
    wrong: float

    @property
    def share(self) -> float:
        """How many of its rows are wrong."""
        return self.wrong / self.rows


@dataclass(frozen=True)
class Causes:
    """Of n rows the value of each kind of cause, [n] texts, "" for none."""

    kinds: Mapping[str, npt.NDArray[np.object_]]
    count: int

    @classmethod
    def of(cls, run: DecidedRun, table: Table | None) -> Causes:
        """Those of a run, and of the columns of the file that was audited."""
        found: dict[str, npt.NDArray[np.object_]] = {}
        if run.likely is not None:
            names = np.array(run.class_names, dtype=object)
            labels = run.scores["label"].astype(str)
            found["label"] = np.array(
                [f"{one} → {other}" for one, other in zip(labels, names[run.likely], strict=True)], object
            )
        for name in ("text_problem", "annotator"):
            if name in run.scores:
                found[name.replace("_", " ")] = run.scores[name].fillna("").astype(str).to_numpy(dtype=object)
        found |= {f"column {name}": one for name, one in _columns(table).items() if f"column {name}" not in found}
        return cls(found, len(run.scores))

    def flags(self, name: str) -> Flags:
        """The rows of a cause by its name; all rows for "", none for one that there is not."""
        if not name:
            return np.ones(self.count, dtype=bool)
        kind, _, value = name.partition(": ")
        if kind not in self.kinds:
            return np.zeros(self.count, dtype=bool)
        return (self.kinds[kind] == value).astype(bool)

    def worst(self, likely: Floats, most: int = 40) -> list[Cause]:
        """Where more is wrong than elsewhere by more than chance, as ``likely`` [n] has it; most wrong rows first."""
        overall = float(likely.mean())
        found: list[Cause] = []
        for kind, values in self.kinds.items():
            for value, (rows, wrong) in _sums(values, likely).items():
                chance = 2 * np.sqrt(rows * overall * (1 - overall))
                if value and rows >= FEWEST and wrong >= FEWEST and wrong > rows * overall + chance:
                    found.append(Cause(f"{kind}: {value}", rows, wrong))
        return sorted(found, key=lambda one: -one.wrong)[:most]


def _sums(values: npt.NDArray[np.object_], likely: Floats) -> dict[str, tuple[int, float]]:
    numbers, names = pd.factorize(values)
    rows, wrong = np.bincount(numbers), np.bincount(numbers, likely)
    return {str(name): (int(rows[at]), float(wrong[at])) for at, name in enumerate(names)}


def _columns(table: Table | None) -> dict[str, npt.NDArray[np.object_]]:
    """Those of the file that deal its rows into some groups: a source, a date, a labeller."""
    found: dict[str, npt.NDArray[np.object_]] = {}
    for name in table.columns if table else ():
        values = [record.get(name) for record in table.records] if table else []
        if all(one is None or isinstance(one, str | int | bool) for one in values):
            texts = np.array(["" if one is None else str(one) for one in values], dtype=object)
            if 1 < len(set(texts)) <= MOST_VALUES:
                found[name] = texts
    return found
