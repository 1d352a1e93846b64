"""Thresher finds the training rows that hurt a fine-tuned language model.

One sign everywhere: larger = helpful, lower = detrimental.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thresher.api import AuditResult
    from thresher.calibration.act import clean
    from thresher.calibration.arrays import Calibrated, ask_queries, calibrate
    from thresher.cli import compare
    from thresher.config import AuditConfig
    from thresher.detectors.registry import detect
    from thresher.errors import ThresherError
    from thresher.evaluate.cancellation import cancellation
    from thresher.evaluate.detection import noise_detection_auc, noise_detection_rate
    from thresher.influences.compute import influence
    from thresher.model.checkpoints import Checkpoint, read_checkpoints
    from thresher.model.keeper import CheckpointKeeper
    from thresher.pipeline import audit
    from thresher.results.clean import clean_run
    from thresher.results.compare import Comparison, compare_runs
    from thresher.results.layer_view import Explanation, explain
    from thresher.scores.aggregate import aggregate

__all__ = [
    "AuditConfig",
    "AuditResult",
    "Calibrated",
    "Checkpoint",
    "CheckpointKeeper",
    "Comparison",
    "Explanation",
    "ThresherError",
    "aggregate",
    "ask_queries",
    "audit",
    "calibrate",
    "cancellation",
    "clean",
    "clean_run",
    "compare",
    "compare_runs",
    "detect",
    "explain",
    "influence",
    "noise_detection_auc",
    "noise_detection_rate",
    "read_checkpoints",
]

# Found when first used: importing torch and transformers takes seconds, and `thresher --help` needs neither.
_HOMES = {
    "AuditConfig": "thresher.config",
    "AuditResult": "thresher.pipeline",
    "Calibrated": "thresher.calibration.arrays",
    "Checkpoint": "thresher.model.checkpoints",
    "CheckpointKeeper": "thresher.model.keeper",
    "Comparison": "thresher.results.compare",
    "Explanation": "thresher.layer_view",
    "ThresherError": "thresher.errors",
    "aggregate": "thresher.scores.aggregate",
    "ask_queries": "thresher.calibration.arrays",
    "audit": "thresher.pipeline",
    "calibrate": "thresher.calibration.arrays",
    "cancellation": "thresher.evaluate.cancellation",
    "clean": "thresher.calibration.act",
    "clean_run": "thresher.results.clean",
    "compare": "thresher.results.compare",
    "compare_runs": "thresher.results.compare",
    "detect": "thresher.detectors.arrays",
    "explain": "thresher.layer_view",
    "influence": "thresher.influences.compute",
    "noise_detection_auc": "thresher.evaluate.detection",
    "noise_detection_rate": "thresher.evaluate.detection",
    "read_checkpoints": "thresher.model.checkpoints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'thresher' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
