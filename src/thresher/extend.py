"""Everything that can be added to Thresher: a registry each, and the record that goes into it.

    from thresher.extend import DETECTORS, Detector

    DETECTORS.register("longest", Detector("longest", longest, "-tokens of the row", "nothing", "-"))

A package does the same by an entry point in the registry's group (:mod:`thresher.registry`). ``examples/extend`` has
one short file a kind.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thresher.detectors.evidence import Evidence
    from thresher.detectors.families import Family
    from thresher.detectors.registry import DETECTORS, Detector
    from thresher.influences.pairing import Pairing
    from thresher.influences.registry import INFLUENCE, InfluenceFunction
    from thresher.scores.aggregate import AGGREGATIONS, AggregationFunction

__all__ = [
    "AGGREGATIONS",
    "DETECTORS",
    "INFLUENCE",
    "AggregationFunction",
    "Detector",
    "Evidence",
    "Family",
    "InfluenceFunction",
    "Pairing",
]

_HOMES = {
    "AGGREGATIONS": "thresher.scores.aggregate",
    "AggregationFunction": "thresher.scores.aggregate",
    "DETECTORS": "thresher.detectors.registry",
    "Detector": "thresher.detectors.registry",
    "Evidence": "thresher.detectors.evidence",
    "Family": "thresher.detectors.families",
    "INFLUENCE": "thresher.influences.registry",
    "InfluenceFunction": "thresher.influences.registry",
    "Pairing": "thresher.influences.pairing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'thresher.extend' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
