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
    from thresher.data.corruption.answers import SPOILED_ANSWERS
    from thresher.data.corruption.kinds import PLANTED
    from thresher.data.examples import Examples
    from thresher.data.formats import FORMATS, Contents, Format, lines_of
    from thresher.detectors.evidence import Evidence
    from thresher.detectors.families import Family
    from thresher.detectors.registry import DETECTORS, Detector
    from thresher.influences.pairing import Pairing
    from thresher.influences.registry import INFLUENCE, InfluenceFunction
    from thresher.scores.aggregate import AGGREGATIONS, AggregationFunction
    from thresher.tasks.base import Task
    from thresher.tasks.registry import TASKS
    from thresher.track import TRACKERS, Tracker, TrackerKind

__all__ = [
    "AGGREGATIONS",
    "DETECTORS",
    "FORMATS",
    "INFLUENCE",
    "PLANTED",
    "SPOILED_ANSWERS",
    "TASKS",
    "TRACKERS",
    "AggregationFunction",
    "Contents",
    "Detector",
    "Evidence",
    "Examples",
    "Family",
    "Format",
    "InfluenceFunction",
    "Pairing",
    "Task",
    "Tracker",
    "TrackerKind",
    "lines_of",
]

_HOMES = {
    "AGGREGATIONS": "thresher.scores.aggregate",
    "DETECTORS": "thresher.detectors.registry",
    "FORMATS": "thresher.data.formats",
    "INFLUENCE": "thresher.influences.registry",
    "PLANTED": "thresher.data.corruption.kinds",
    "SPOILED_ANSWERS": "thresher.data.corruption.answers",
    "TASKS": "thresher.tasks.registry",
    "TRACKERS": "thresher.track",
    "AggregationFunction": "thresher.scores.aggregate",
    "Contents": "thresher.data.formats",
    "Detector": "thresher.detectors.registry",
    "Evidence": "thresher.detectors.evidence",
    "Examples": "thresher.data.examples",
    "Family": "thresher.detectors.families",
    "Format": "thresher.data.formats",
    "InfluenceFunction": "thresher.influences.registry",
    "Pairing": "thresher.influences.pairing",
    "Task": "thresher.tasks.base",
    "Tracker": "thresher.track",
    "TrackerKind": "thresher.track",
    "lines_of": "thresher.data.formats",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'thresher.extend' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
