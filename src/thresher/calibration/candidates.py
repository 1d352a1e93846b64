"""Every candidate's scores of all rounds side by side, in a unit in which they can be compared and added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from thresher.arrays import Flags, Floats, Indices
from thresher.scores.table import DETECTOR, is_score

RANDOM = DETECTOR + "random"


@dataclass(frozen=True)
class Candidates:
    """M looks at n rows: each row as each round saw it.

    ``places`` [M, K] are the scores of K candidates as the share of the round's rows that lie below, ties sharing the
    middle of their places, in (0, 1); lower = suspicious. ``row`` and ``canary`` [M] say which row it is and
    whether with a wrong label of ours.
    """

    names: tuple[str, ...]
    places: npt.NDArray[np.float32]
    row: Indices
    canary: Flags

    @property
    def rows(self) -> int:
        """How many different rows there are, n."""
        return int(self.row.max()) + 1

    @property
    def seen(self) -> Flags:
        """Which rows were no canary in some round, [n]: all rows of an audit."""
        return np.bincount(self.row, ~self.canary, minlength=self.rows) > 0

    def column(self, name: str) -> Floats:
        """One candidate's places, [M]."""
        return self.places[:, self.names.index(name)].astype(np.float64)

    def only(self, wanted: Callable[[str], bool]) -> Candidates:
        """Those whose names are ``wanted``."""
        kept = [number for number, name in enumerate(self.names) if wanted(name)]
        return replace(self, names=tuple(self.names[number] for number in kept), places=self.places[:, kept])

    def merged(self, values: Floats) -> Floats:
        """Mean of ``values`` [M] over the rounds in which the row was no canary, [n]: the row as it was given.

        NaN for a row that was a canary in every round, as no row of an audit is.
        """
        true = ~self.canary
        looks = np.bincount(self.row[true], minlength=self.rows)
        sums = np.bincount(self.row[true], values[true], minlength=self.rows)
        return np.divide(sums, looks, out=np.full(self.rows, np.nan), where=looks > 0)


def side_by_side(tables: Sequence[pd.DataFrame]) -> Candidates:
    """Candidates of each round's ``candidates.parquet``.

    A candidate that is not there in every round, or has the same score for every row of one, is left out, and so is
    chance, which may not be chosen.
    """
    return candidates_of([name for name in tables[0].columns if is_score(name)], tables)


def candidates_of(names: Sequence[str], tables: Sequence[pd.DataFrame]) -> Candidates:
    """Those of ``names`` that say something in each of the rounds' tables; chance is left out."""
    there = [name for name in names if name not in (RANDOM, RANDOM.removeprefix(DETECTOR))]
    names = [name for name in there if all(_varies(table, name) for table in tables)]
    return Candidates(
        tuple(names),
        np.concatenate([_places(table[names].to_numpy()) for table in tables]),
        np.concatenate([table["row"].to_numpy() for table in tables]),
        np.concatenate([table["canary"].to_numpy() for table in tables]),
    )


def normal(places: npt.NDArray[np.floating]) -> Floats:
    """Places as the normal deviates they would be, so that the ends count: 0.025 becomes about -1.96."""
    return ndtri(places.astype(np.float64))


def _varies(table: pd.DataFrame, name: str) -> bool:
    return name in table and bool(table[name].min() < table[name].max())


def _places(scores: Floats) -> npt.NDArray[np.float32]:
    from scipy.stats import rankdata

    return ((rankdata(scores, axis=0) - 0.5) / len(scores)).astype(np.float32)
