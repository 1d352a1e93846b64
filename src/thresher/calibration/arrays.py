"""``thresher.calibrate``: how likely each row is wrong, from scores that came from anywhere."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from thresher.arrays import Floats, Labels
from thresher.calibration.annotators import AnnotatorRate
from thresher.calibration.beside import Beside, inform
from thresher.calibration.candidates import Candidates, ScoredRound, side_by_side
from thresher.calibration.confidence import along
from thresher.calibration.error_rate import ErrorRate, Share
from thresher.calibration.opinions import Opinions, opinions_of
from thresher.calibration.ranking import rank_rows
from thresher.calibration.repair import suggest
from thresher.calibration.stack import prior_stack
from thresher.detectors.arrays import evidence_of, whole_numbers
from thresher.detectors.confident import confident_joint
from thresher.errors import ConfigError, DataError
from thresher.scores.names import score_called
from thresher.scores.table import rank_of

FEWEST = 10
"""Canaries, each fold of which must have some."""

Scores = pd.DataFrame | Mapping[str, npt.ArrayLike]


@dataclass(frozen=True, repr=False)
class Calibrated:
    """Rows from most to least likely wrong.

    Attributes:
        table: One line a row, in the order of the rows: ``score`` (larger = helpful), ``rank`` (1 = most detrimental),
            ``probability_wrong``, ``q_value`` (of wrong calls among the row and all above it), and where classes have
            probabilities ``suggested`` and ``suggestion_confidence``. NaN where nothing tells.
        share: Of the rows that is wrong, with its 95 % interval; None where nothing tells. Its bounds are NaN where it
            is confident learning's count, which has none.
        annotators: The share of each annotator's rows that is wrong: ``rows``, ``estimate``, ``low`` and ``high``, by
            name, whose interval begins highest first; empty where nobody is named, or nothing tells.
        told_by: Who tells it: "canaries", "canaries and queries", "queries", "confident learning" or "nothing".
    """

    table: pd.DataFrame
    share: Share | None
    told_by: str
    annotators: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __repr__(self) -> str:
        share = "no share of errors" if self.share is None else f"{self.share.estimate:.1%} wrong"
        if self.share is not None and np.isfinite(self.share.low):
            share += f" ({self.share.low:.1%} to {self.share.high:.1%})"
        return f"Calibrated({len(self.table)} rows, {share}, told by {self.told_by})"

    @property
    def suspicious(self) -> Labels:
        """Rows more likely wrong than right, the worst first; without probabilities as many as are thought wrong."""
        order = np.argsort(self.table["rank"].to_numpy(), kind="stable")
        probability = self.table["probability_wrong"].to_numpy()
        if np.isfinite(probability).any():
            return order[probability[order] > 0.5]
        return order[: round(self.share.estimate * len(order))] if self.share else order[:0]


def ask_queries(
    labels: npt.ArrayLike,
    features: npt.ArrayLike,
    query_labels: npt.ArrayLike,
    query_features: npt.ArrayLike,
    *,
    canary: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Opinions:
    """What clean queries tell of rows: their classes, by which law their labels go wrong, and how many do.

    Args:
        labels: Classes as trained on, [n].
        features: Vectors of the rows, by a model that has not seen these labels, [n, d].
        query_labels: Classes of rows that are known to be right, [Q]. Some dozens of each class are needed, of the kind
            of the rows.
        query_features: Their vectors, [Q, d].
        canary: Rows whose label is wrong by your own doing, [n].
        seed: Fixes the folds.

    Returns:
        What :func:`calibrate` takes.

    Raises:
        DataError: For arrays that do not fit one another.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> truth, query_labels = np.arange(200) % 2, np.arange(60) % 2
        >>> features, query_features = (2 * y[:, None] + rng.normal(size=(len(y), 3)) for y in (truth, query_labels))
        >>> labels = np.where(np.arange(200) < 30, 1 - truth, truth)
        >>> opinions = ask_queries(labels, features, query_labels, query_features)
        >>> bool(0.05 < opinions.known.share < 0.3)  # 15 % are wrong
        True
    """
    evidence = evidence_of(labels, None, None, features, query_labels, query_features, seed)
    if not evidence.has("queries") or not evidence.has("classes"):
        raise DataError("query_labels: there must be queries, and more than one class.")
    marked = np.zeros(len(evidence.labels), dtype=bool) if canary is None else np.asarray(canary, dtype=bool)
    found = Opinions.of([opinions_of(evidence, marked)])
    assert found is not None
    return found


def calibrate(
    scores: Scores | Sequence[Scores],
    labels: npt.ArrayLike,
    canary: npt.ArrayLike | Sequence[npt.ArrayLike] | None = None,
    *,
    rows: npt.ArrayLike | Sequence[npt.ArrayLike] | None = None,
    opinions: Opinions | None = None,
    pred_probs: npt.ArrayLike | None = None,
    annotators: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Calibrated:
    """Rank rows by several scores at once, and say how likely each is wrong, as far as anything tells.

    What tells are canaries: rows that you gave a wrong label of your own, at random, before the scores were made. They
    choose what finds errors in these rows, and how far their scores stand apart says how many others are wrong. Clean
    queries tell it without them (:func:`ask_queries`). Where there is neither, nothing is calibrated: the scores are
    combined by weights that come from other data, ``probability_wrong`` and ``q_value`` are NaN, and the share of
    errors is counted as confident learning does (Northcutt et al. 2021) where ``pred_probs`` are given, and else not
    estimated. Its count holds where errors hang on the class and probabilities are right on average; it has no
    interval, for it does not know whether they are.

    Args:
        scores: A table of one line a row and one column a score, larger = helpful, such as :func:`thresher.detect`
            gives; or one such table a round, where several trainings had other canaries each.
        labels: Classes as given, canaries' too, [n].
        canary: Which lines are canaries, bool; one array a table. A row that is a canary in every table has never been
            seen as it was given, and is not judged.
        rows: Which row each line is, one array a table; by default line i is row i.
        opinions: What clean queries tell of the lines.
        pred_probs: Probabilities of the classes by models that did not learn from the row, [n, C]: for the suggestion
            of a better label, and for the count of errors where nothing else tells.
        annotators: Who labelled each row, None where that is not known, [n]: how often each is wrong informs each row.
        seed: Fixes the folds.

    Returns:
        A table of verdicts, and the share of errors.

    Raises:
        DataError: For arrays that do not fit one another.
        ConfigError: For fewer than ten canaries, or where no score tells rows apart.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> truth = rng.integers(0, 2, 400)
        >>> labels = np.where(np.arange(400) < 40, 1 - truth, truth)  # 10 % are wrong
        >>> canary = np.arange(400) >= 360  # and 40 more by our own doing
        >>> trained_on = np.where(canary, 1 - labels, labels)
        >>> wrong = trained_on != truth
        >>> scores = {"loss": rng.normal(size=400) - 3 * wrong, "margin": rng.normal(size=400) - 3 * wrong}
        >>> found = calibrate(scores, labels, canary)
        >>> bool(found.share.low < 40 / 360 < found.share.high)
        True
        >>> bool((found.suspicious < 40).mean() > 0.8)
        True
    """
    given = whole_numbers(labels, "labels")
    candidates = _candidates(scores, canary, rows, len(given))
    said = None if pred_probs is None else evidence_of(given, pred_probs).held_out
    if pred_probs is not None and said is None:
        raise DataError("pred_probs: one prediction a row is needed here, [n, C], by models without the row.")
    if opinions is not None and len(opinions.judges[0]) != len(candidates.row):
        raise DataError("opinions: they are of other rows than the scores; ask the queries about the same lines.")
    classes = int(given.max()) + 1 if said is None else said.shape[1]
    classes = classes if opinions is None else max(classes, opinions.judges[0].shape[1])
    named = None if annotators is None else _named(annotators, len(given))
    if candidates.canary.any():
        return _by_canaries(candidates, given, classes, opinions, said, seed, named)
    return _without(candidates, given, classes, opinions, said, named)


@dataclass(frozen=True)
class _Named:
    """Annotators by name, and the number of each row's, -1 where nobody is named."""

    names: list[Hashable]
    beside: Beside

    def table(self, rates: Sequence[AnnotatorRate]) -> pd.DataFrame:
        columns = ["rows", "estimate", "low", "high"]
        index = pd.Index(self.names, name="annotator")
        found: Any = pd.DataFrame([asdict(one) for one in rates], index=index)[columns]
        return found.sort_values(["low", "estimate"], ascending=False)


def _named(annotators: Sequence[Hashable], count: int) -> _Named:
    if len(annotators) != count:
        raise DataError(f"annotators: there are {len(annotators)}, and {count} rows; give one a row, None if unknown.")
    numbers, names = pd.factorize(np.array(annotators, dtype=object))
    if not len(names):
        raise DataError("annotators: nobody is named; leave it out.")
    return _Named(list(names), Beside(annotators=numbers.astype(np.int64)))


def _candidates(scores: Any, canary: Any, rows: Any, count: int) -> Candidates:
    several = isinstance(scores, (list, tuple))
    tables = [pd.DataFrame(one).reset_index(drop=True) for one in (scores if several else [scores])]
    marks: Any = [None] * len(tables) if canary is None else canary if several else [canary]
    which: Any = [None] * len(tables) if rows is None else rows if several else [rows]
    found: list[ScoredRound] = []
    for table, mark, row in zip(tables, marks, which, strict=True):
        marked = np.zeros(len(table), dtype=bool) if mark is None else np.asarray(mark)
        places = np.arange(len(table)) if row is None else np.asarray(row)
        if marked.shape != (len(table),) or places.shape != (len(table),):
            raise DataError(f"canary, rows: one entry a line of the scores is needed, and there are {len(table)}.")
        if not np.isfinite(table.to_numpy(dtype=np.float64)).all():
            raise DataError("scores: a number is not finite; leave out its column or its row.")
        called = {score_called(str(name)): values.to_numpy(dtype=np.float64) for name, values in table.items()}
        found.append(ScoredRound(places.astype(np.int64), marked.astype(bool), called))
    seen = np.unique(np.concatenate([one.row for one in found]))
    if not np.array_equal(seen, np.arange(count)):
        raise DataError(f"labels: there are {count}, and the scores are of {len(seen)} rows; give one label a row.")
    candidates = side_by_side(found)
    if not candidates.names:
        raise ConfigError("scores: none of them tells rows apart in every table.")
    if 0 < candidates.canary.sum() < FEWEST:
        raise ConfigError(f"canary: {candidates.canary.sum()} canaries tell too little; give {FEWEST} or more.")
    return candidates


def _by_canaries(
    candidates: Candidates,
    labels: Labels,
    classes: int,
    opinions: Opinions | None,
    said: Floats | None,
    seed: int,
    named: _Named | None,
) -> Calibrated:
    fine = np.zeros(len(labels), dtype=bool)
    ranking = rank_rows(candidates, labels, classes, seed, fine, opinions, named and named.beside)
    sure = ranking.confidence
    told_by = "canaries" if sure.rate.queries is None else "canaries and queries"
    better = (ranking.suggested, ranking.suggestion_confidence)
    if ranking.suggested is None and said is not None:
        better = suggest(labels, said, sure.probability)
    table = _table(ranking.suspicion, sure.probability, sure.q_value, better)
    return Calibrated(table, sure.rate.share, told_by, named.table(ranking.annotators) if named else pd.DataFrame())


def _without(
    candidates: Candidates,
    labels: Labels,
    classes: int,
    opinions: Opinions | None,
    said: Floats | None,
    named: _Named | None,
) -> Calibrated:
    suspicion = candidates.merged(prior_stack(candidates).suspicion(candidates))
    unknown = np.full(len(labels), np.nan)
    if opinions is not None and opinions.pattern is not None:
        known = opinions.known
        share = None if known is None else _share_by_queries(known.share, known.error)
        law, truth = opinions.merge_pattern(candidates), opinions.merged(candidates)
        assert law is not None
        rate = share or Share(float(expit(law.odds).mean()), np.nan, np.nan)
        sure = along(suspicion, expit(law.odds), ErrorRate(rate, rate, share))
        rates = pd.DataFrame()
        if named is not None:
            heard = inform(suspicion, sure, np.zeros(len(labels), dtype=bool), classes, named.beside)
            suspicion, sure, rates = heard.suspicion, heard.confidence, named.table(heard.rates)
        better = suggest(labels, truth, sure.probability)
        return Calibrated(_table(suspicion, sure.probability, sure.q_value, better), share, "queries", rates)
    if said is None:
        return Calibrated(_table(suspicion, unknown, unknown, (None, None)), None, "nothing")
    joint = confident_joint(labels, said)
    share = Share(float(1 - np.trace(joint) / joint.sum()), np.nan, np.nan)
    suggested, _ = suggest(labels, said, unknown)
    return Calibrated(_table(suspicion, unknown, unknown, (suggested, unknown)), share, "confident learning")


def _share_by_queries(share: float, error: float) -> Share:
    return Share(share, max(share - 1.96 * error, 0.0), min(share + 1.96 * error, 1.0))


def _table(suspicion: Floats, wrong: Floats, q_value: Floats, better: tuple[Any, Any]) -> pd.DataFrame:
    score = -suspicion
    columns: dict[str, Any] = {"score": score, "rank": rank_of(score), "probability_wrong": wrong, "q_value": q_value}
    if better[0] is not None:
        columns |= {"suggested": better[0], "suggestion_confidence": better[1]}
    return pd.DataFrame(columns)
