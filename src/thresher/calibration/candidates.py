"""Every candidate's scores of all rounds side by side, in a unit in which they can be compared and added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from thresher.arrays import Flags, Floats, Indices
from thresher.scores.names import DetectorScore, ScoreName

RANDOM = DetectorScore("random")


@dataclass(frozen=True)
class ScoredRound:
    """What one round says: of each of its lines which ``row`` it is, whether a ``canary``, and its ``scores``, [N']."""

    row: Indices
    canary: Flags
    scores: Mapping[ScoreName, Floats]


@dataclass(frozen=True)
class Candidates:
    """M looks at n rows: each row as each round saw it.

    ``places`` [M, K] are the scores of K candidates as the share of the round's rows that lie below, ties sharing the
    middle of their places, in (0, 1); lower = suspicious. ``row`` and ``canary`` [M] say which row it is and
    whether with a wrong label of ours.
    """

    names: tuple[ScoreName, ...]
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

    def column(self, name: ScoreName) -> Floats:
        """One candidate's places, [M]."""
        return self.places[:, self.names.index(name)].astype(np.float64)

    def only(self, wanted: Callable[[ScoreName], bool]) -> Candidates:
        """Those that are ``wanted``."""
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


def side_by_side(rounds: Sequence[ScoredRound]) -> Candidates:
    """Candidates of all rounds.

    A candidate that is not there in every round, or has the same score for every row of one, is left out, and so is
    chance, which may not be chosen.
    """
    names = [one for one in rounds[0].scores if one != RANDOM and all(_varies(found, one) for found in rounds)]
    return Candidates(
        tuple(names),
        np.concatenate([_places(found, names) for found in rounds]),
        np.concatenate([found.row for found in rounds]),
        np.concatenate([found.canary for found in rounds]),
    )


def normal(places: npt.NDArray[np.floating]) -> Floats:
    """Places as the normal deviates they would be, so that the ends count: 0.025 becomes about -1.96."""
    return ndtri(places.astype(np.float64))


def _varies(found: ScoredRound, one: ScoreName) -> bool:
    return one in found.scores and bool(np.min(found.scores[one]) < np.max(found.scores[one]))


def _places(found: ScoredRound, names: Sequence[ScoreName]) -> npt.NDArray[np.float32]:
    from scipy.stats import rankdata

    scores = np.empty((len(found.row), len(names)))
    for column, one in enumerate(names):
        scores[:, column] = found.scores[one]
    return ((rankdata(scores, axis=0) - 0.5) / len(scores)).astype(np.float32)
