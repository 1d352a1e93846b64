"""What a report shows beside summary.json: numbers from the other files of a finished run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from thresher.arrays import Floats, Indices
from thresher.auditing.looks import read_candidates, rounds_as_given
from thresher.auditing.run import RunDirectory
from thresher.auditing.witnesses import untrained_features
from thresher.calibration.candidates import side_by_side
from thresher.calibration.reliability import EDGES
from thresher.decisions import DECISIONS, Decision, DecisionLog, standing
from thresher.evaluate.detection import auroc, detection_curve
from thresher.influences.tensor import TensorFile
from thresher.progress import Silent
from thresher.scores.layers import layer_ranks
from thresher.scores.names import Configuration, configuration_called
from thresher.scores.stored import read_scores, scores_in
from thresher.scores.table import known_by
from thresher.summary import Summary

MOST_ON_MAP = 1500
"""Rows of a map: more would hide one another, and make the page large."""

LEVELS = {0.0: "under 10 %", 0.1: "10 to 50 %", 0.5: "50 to 90 %", 0.9: "over 90 % likely wrong"}
"""Of suspicion, on a map: from which probability on, and what it is called."""

ON_LAYERS = 4
"""Rows whose way through the layers is drawn."""

RANKED, READ = 10_000_000, 100_000_000
"""Numbers of the influence tensor that are ranked within a second, and that are read within one; of more than the first
the mean is taken, and more than the second are left alone."""

AXES = 12
"""Directions in which features differ most, among which those are found that tell labels apart."""

CLASSES = 12
"""Classes of a picture of given and suggested labels: those most often in a suggestion."""


@dataclass(frozen=True)
class Planted:
    """Rows from one probability of being wrong to another: how many, its mean, how many are planted errors."""

    above: float
    up_to: float
    probability: float
    rows: int
    planted: int


@dataclass(frozen=True)
class RowMap:
    """Rows in two dimensions, [m] each: ``level`` is their place in ``levels`` of suspicion, ``labels`` their classes.

    ``of`` says how many rows there are, of which these were drawn.
    """

    x: Floats
    y: Floats
    level: Indices
    levels: tuple[str, ...]
    labels: tuple[str, ...]
    of: int


@dataclass(frozen=True)
class LayerRanks:
    """Of some rows (columns) the share of the rows below at each layer (lines), in percent, by an influence function.

    ``how`` says how it was added up.
    """

    influence: str
    how: str
    percent: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Facts:
    """A finished run, ``scores`` as in scores.parquet. What it has nothing of is None or empty."""

    run_dir: RunDirectory
    scores: pd.DataFrame
    summary: Summary

    @cached_property
    def decided(self) -> dict[int, Decision]:
        """The decision that stands about each row that people decided about, by the row's number."""
        stands = standing(DecisionLog(self.run_dir.path / DECISIONS).read())
        known = known_by(self.scores) if stands else []
        return {row: stands[one] for row, one in enumerate(known) if one in stands}

    @property
    def planted_reliability(self) -> tuple[Planted, ...]:
        """How many rows of about the same probability are planted errors."""
        if "probability_wrong" not in self.scores or not self._plants:
            return ()
        said, planted = (self.scores[name].to_numpy() for name in ("probability_wrong", "planted"))
        bins = np.digitize(said, EDGES[1:-1], right=True)
        return tuple(
            Planted(EDGES[one], EDGES[one + 1], float(said[here].mean()), int(here.sum()), int(planted[here].sum()))
            for one in range(len(EDGES) - 1)
            if (here := bins == one).any()
        )

    @property
    def suggestions(self) -> pd.DataFrame:
        """How many rows of each label (lines) have each other one suggested (columns), of the labels most concerned."""
        if "suggested" not in self.scores:
            return pd.DataFrame()
        pairs: Any = self.scores.loc[self.scores["suggested"].notna(), ["label", "suggested"]].astype(str)
        often = Counter([*pairs["label"], *pairs["suggested"]])
        if not often:
            return pd.DataFrame()
        names = [name for name, _ in sorted(often.items(), key=lambda one: (-one[1], one[0]))[:CLASSES]]
        shown = sorted(names)
        counts = pd.crosstab(pairs["label"], pairs["suggested"])
        return counts.reindex(index=shown, columns=shown, fill_value=0)

    @property
    def curves(self) -> dict[str, Floats]:
        """The share of the planted errors found by the ranking, and by the best detector and influence in hindsight."""
        planted = self.scores["planted"].to_numpy() if self._plants else np.zeros(0, dtype=bool)
        if planted.all() or not planted.any():
            return {}
        shown = {f"{self.summary.score} (ranks the rows)": self.scores["score"].to_numpy()}
        entries = {one.score: one for one in self.summary.detection if one.score not in ("auto", "chance", "oracle")}
        kinds = {name: configuration_called(name) is not None for name in entries if name != self.summary.score}
        best = [
            max(there, key=lambda name: entries[name].auc_ndr)
            for kind in (False, True)
            if (there := [name for name, influence in kinds.items() if influence == kind])
        ]
        read = read_scores(self.run_dir.all_scores, best)
        shown |= {f"{one.name} (best in hindsight)": values for one, values in read.items()}
        return {title: detection_curve(values, planted) for title, values in shown.items()}

    @cached_property
    def influence_by_group(self) -> tuple[str, pd.DataFrame] | None:
        """How an aggregation is called, and by it how well each influence (lines) tells known errors from other rows at
        each layer group (columns): the AUROC of planted errors, or where there are none of canaries."""
        shown = configuration_called(self.summary.shown_influence or "")
        if shown is None:
            return None
        found = {one.score: one.auroc for one in self.summary.detection} or self._canary_auroc_of_influences
        there = {one: value for name, value in found.items() if (one := configuration_called(name)) is not None}
        table = pd.DataFrame(
            [(one.influence, one.group, value) for one, value in there.items() if one.how == shown.how],
            columns=["influence", "group", "auroc"],
        )
        groups = list(dict.fromkeys(table["group"]))
        wide: pd.DataFrame = table.pivot(index="influence", columns="group", values="auroc")
        return shown.how, wide.reindex(index=list(dict.fromkeys(table["influence"])), columns=groups)

    def canary_auroc(self, names: Collection[str]) -> dict[str, float]:
        """How well scores tell canaries from other rows, over all rounds: 1 = wholly, 0.5 = not at all."""
        auto = self.summary.auto
        if auto is None:
            return {}
        rounds = [read_candidates(self.run_dir.round(number), names) for number in range(len(auto.canaries))]
        looks = side_by_side(rounds)
        return {one.name: auroc(looks.column(one), looks.canary) for one in looks.names}

    def places(self, rows: Sequence[int]) -> dict[str, Floats]:
        """By family of the scores that rank the rows, which share of the rows is less suspicious than each of these."""
        auto = self.summary.auto
        if auto is None or not auto.combined:
            return {}
        read = {one.name: values for one, values in self._members.items()}
        count = len(self.scores)
        found: dict[str, Floats] = {}
        for family, names in auto.members.items():
            there = [1 - (rankdata(read[name])[list(rows)] - 0.5) / count for name in names if name in read]
            if there:
                found[family] = np.mean(there, axis=0)
        return found

    @property
    def by_layer(self) -> LayerRanks | None:
        """The most suspicious rows at every layer by the influence that explains the ranking; None without a tensor."""
        shown = configuration_called(self.summary.shown_influence or "")
        file = TensorFile(self.run_dir.tensor)
        if shown is None or not file.path.is_dir() or not self.summary.suspicious:
            return None
        rows = rounds_as_given(self.run_dir, [one.row for one in self.summary.suspicious])[0][:ON_LAYERS]
        tensor = file.open()
        if not rows or tensor[shown.influence].size > READ:
            return None
        how = shown.aggregation if tensor[shown.influence].size <= RANKED else "mean"
        k = self.summary.config.k
        found = layer_ranks(tensor, [shown.influence], rows, how, k, among=len(self.scores), progress=Silent())
        percent = {row: one[shown.influence].astype("Float64") for row, one in zip(rows, found, strict=True)}
        table = pd.DataFrame(percent).astype(float).dropna(how="all") * (100 / len(self.scores))
        return LayerRanks(shown.influence, shown.how if how == shown.aggregation else how, table)

    @property
    def row_map(self) -> RowMap | None:
        """Rows where features of the model as it came lie in the two directions that tell the labels apart best."""
        found = untrained_features(self.run_dir) if "label" in self.scores else None
        if found is None:
            return None
        count = len(self.scores)
        features = found.train[:count]
        chosen = np.sort(np.random.default_rng(0).permutation(count)[:MOST_ON_MAP])
        labels = self.scores["label"].iloc[chosen].astype(str)
        place = _flat(features[chosen], labels.to_numpy())
        if place is None:
            return None
        level, levels = self._levels(chosen)
        return RowMap(place[:, 0], place[:, 1], level, levels, tuple(labels), count)

    @property
    def _plants(self) -> bool:
        return "planted" in self.scores

    @cached_property
    def _members(self) -> Mapping[Any, Floats]:
        auto = self.summary.auto
        names = auto.members.values() if auto else ()
        return read_scores(self.run_dir.all_scores, {one for family in names for one in family})

    @property
    def _canary_auroc_of_influences(self) -> dict[str, float]:
        shown = configuration_called(self.summary.shown_influence or "")
        there = [one for one in scores_in(self.run_dir.all_scores) if isinstance(one, Configuration)]
        return self.canary_auroc({one.name for one in there if shown is not None and one.how == shown.how})

    def _levels(self, chosen: Indices) -> tuple[Indices, tuple[str, ...]]:
        if "probability_wrong" in self.scores:
            said = self.scores["probability_wrong"].to_numpy()[chosen]
            return np.digitize(said, list(LEVELS)) - 1, tuple(LEVELS.values())
        dropped = self.scores["rank"].to_numpy()[chosen] <= self.summary.dropped_rows
        return dropped.astype(np.int64), ("kept", "dropped")


def _flat(features: npt.NDArray[np.float32], labels: npt.NDArray[Any]) -> Floats | None:
    """Features in two dimensions, [m, 2]; None where they do not differ."""
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(length > 0, length, 1)
    most = min(AXES, *unit.shape) - 1
    if most < 2 or np.ptp(unit, axis=0).max() < 1e-6:
        return None
    # Of few directions only: among all of them some would tell even wrong labels apart.
    main = PCA(most, svd_solver="randomized", random_state=0).fit_transform(unit.astype(np.float64))
    if len(set(labels)) < 2:
        return main[:, :2]
    apart = LinearDiscriminantAnalysis().fit(main, labels).transform(main)
    if apart.shape[1] >= 2:
        return apart[:, :2]
    rest = main - apart @ np.linalg.lstsq(apart, main, rcond=None)[0]
    return np.column_stack([apart[:, 0], PCA(1, svd_solver="full").fit_transform(rest)[:, 0]])
