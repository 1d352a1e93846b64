"""Which score: a typed record of what it is made of. Its name is for people, read only where one of them types it.

A score is known by its record; names are made of records and never taken apart. What a user types is compared with the
names of the scores that there are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, Literal

from thresher.config import Aggregation
from thresher.errors import ConfigError
from thresher.influences.registry import INFLUENCE
from thresher.model.names import GROUPS
from thresher.scores.aggregate import AGGREGATIONS

_DETECTOR = "detector/"

ScoreKind = Literal["influence", "detector"]


@dataclass(frozen=True)
class Configuration:
    """A score made of influence: a function, a layer group, and how its columns become one number a row.

    Attributes:
        influence: The influence function.
        group: The layer group, of :data:`thresher.model.names.GROUPS`.
        aggregation: The aggregation.
        k: The share of the rows that a column votes against, None for what does not vote.

    Example:
        >>> Configuration("datainf", "layers", "vote", 0.3).name
        'datainf/layers/vote@0.3'
    """

    influence: str
    group: str
    aggregation: Aggregation
    k: float | None = None

    @property
    def kind(self) -> ScoreKind:
        """What it is made of."""
        return "influence"

    @property
    def how(self) -> str:
        """``vote@0.3``: the aggregation with its k."""
        return self.aggregation if self.k is None else f"{self.aggregation}@{self.k:g}"

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.influence}/{self.group}/{self.how}"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class DetectorScore:
    """A score that is made of no influence.

    Attributes:
        detector: The detector, or what a user calls a score of their own.

    Example:
        >>> DetectorScore("loss").name
        'detector/loss'
    """

    detector: str

    @property
    def kind(self) -> ScoreKind:
        """What it is made of."""
        return "detector"

    @property
    def name(self) -> str:
        """What people call it."""
        return _DETECTOR + self.detector

    def __str__(self) -> str:
        return self.name


ScoreName = Configuration | DetectorScore

PARTS = ("kind", "influence", "detector", "group", "aggregation", "k")


def parts(one: ScoreName) -> dict[str, Any]:
    """The fields of a score's record by name, None where it has none: values of JSON."""
    return {name: getattr(one, name, None) for name in PARTS}


def of_parts(given: dict[str, Any]) -> ScoreName:
    """The score of those :func:`parts`."""
    if given["kind"] == "detector":
        return DetectorScore(given["detector"])
    return Configuration(given["influence"], given["group"], given["aggregation"], given["k"])


def resolve(asked: str, there: Collection[ScoreName], k: float) -> ScoreName:
    """The score that the user asked for among those there are: by its full name, or without ``detector/`` or ``@k``.

    ``layers`` stands for all modules where no layer is audited. Raises :class:`ConfigError` naming what there is.
    """
    spellings: tuple[Callable[[ScoreName], str | None], ...] = (
        str,
        _over_layers,
        _without_kind,
        partial(_without_k, k=k),
        partial(_without_k, k=k, spelled=_over_layers),
    )
    for spelled in spellings:
        for one in there:
            if spelled(one) == asked:
                return one
    detectors = [one.detector for one in there if isinstance(one, DetectorScore)]
    found = [one for one in there if isinstance(one, Configuration)]
    influences, groups = (dict.fromkeys(getattr(one, part) for one in found) for part in ("influence", "group"))
    raise ConfigError(
        f"--detector {asked}: there is no such score here; there are auto, {', '.join(detectors)}, and "
        f"INFLUENCE/GROUP/AGGREGATION with {', '.join(influences)}; {', '.join(groups)}; {', '.join(AGGREGATIONS)} "
        "(not every influence has every group)."
    )


def score_called(name: str) -> ScoreName:
    """The score that a column of the user's own, a file of options or a stored name calls so.

    It is the influence score of that name, if the registries can make one; else a detector's, or the user's own.
    """
    return configuration_called(name) or DetectorScore(name.removeprefix(_DETECTOR))


def configuration_called(name: str) -> Configuration | None:
    """The influence score of that name, if the registries can make one; None for any other name."""
    for influence in INFLUENCE:
        if name.startswith(f"{influence}/"):  # most are not, and need no closer look
            for group in GROUPS:
                for how, function in AGGREGATIONS.items():
                    one = Configuration(influence, group, how, asked_k(name) if function.votes else None)
                    if one.name == name and function.votes == (one.k is not None):
                        return one
    return None


def asked_k(asked: str) -> float | None:
    """The share that a user asks an aggregation that votes to take, as in ``.../vote@0.25``; None for other names."""
    for how, function in AGGREGATIONS.items():
        head, _, share = asked.rpartition("@")
        if function.votes and head.endswith(f"/{how}"):
            try:
                return k if 0 < (k := float(share)) < inf else None
            except ValueError:
                return None
    return None


def _over_layers(one: ScoreName) -> str | None:
    """The name of what is over all modules, as if it were over the layers."""
    return replace(one, group="layers").name if isinstance(one, Configuration) and one.group == "all" else None


def _without_kind(one: ScoreName) -> str | None:
    return one.detector if isinstance(one, DetectorScore) else None


def _without_k(one: ScoreName, k: float, spelled: Callable[[ScoreName], str | None] = str) -> str | None:
    return spelled(replace(one, k=None)) if isinstance(one, Configuration) and one.k == k else None
