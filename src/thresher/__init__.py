"""Thresher finds the training rows that hurt a fine-tuned language model.

One sign everywhere: larger = helpful, lower = detrimental.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thresher.api import AuditResult, audit
    from thresher.api import open as open
    from thresher.auditing.plan import Plan, plan_audit
    from thresher.auditing.readable import check_audit
    from thresher.auditing.retrain import retrain_on
    from thresher.auditing.run import RunDirectory
    from thresher.calibration.act import clean
    from thresher.calibration.arrays import Calibrated, ask_queries, calibrate
    from thresher.config import AuditConfig
    from thresher.detectors.arrays import detect
    from thresher.errors import ThresherError
    from thresher.evaluate.cancellation import cancellation
    from thresher.evaluate.detection import noise_detection_auc, noise_detection_rate
    from thresher.influences.compute import influence
    from thresher.influences.tensor import SIGN
    from thresher.model.checkpoints import Checkpoint, read_checkpoints
    from thresher.model.keeper import CheckpointKeeper
    from thresher.model.load import check_model
    from thresher.results.clean import clean_run
    from thresher.results.compare import Comparison, compare, compare_runs
    from thresher.results.explain import Explanation, explain
    from thresher.scores.aggregate import aggregate

    __version__: str

__all__ = [
    "SIGN",
    "AuditConfig",
    "AuditResult",
    "Calibrated",
    "Checkpoint",
    "CheckpointKeeper",
    "Comparison",
    "Explanation",
    "Plan",
    "RunDirectory",
    "ThresherError",
    "aggregate",
    "ask_queries",
    "audit",
    "calibrate",
    "cancellation",
    "check_audit",
    "check_model",
    "clean",
    "clean_run",
    "compare",
    "compare_runs",
    "detect",
    "explain",
    "influence",
    "noise_detection_auc",
    "noise_detection_rate",
    "plan_audit",
    "read_checkpoints",
    "retrain_on",
]

# Found when first used: importing torch and transformers takes seconds, and `thresher --help` needs neither.
_HOMES = {
    "SIGN": "thresher.influences.tensor",
    "AuditConfig": "thresher.config",
    "AuditResult": "thresher.api",
    "Calibrated": "thresher.calibration.arrays",
    "Checkpoint": "thresher.model.checkpoints",
    "CheckpointKeeper": "thresher.model.keeper",
    "Comparison": "thresher.results.compare",
    "Explanation": "thresher.results.explain",
    "Plan": "thresher.auditing.plan",
    "RunDirectory": "thresher.auditing.run",
    "ThresherError": "thresher.errors",
    "aggregate": "thresher.scores.aggregate",
    "ask_queries": "thresher.calibration.arrays",
    "audit": "thresher.api",
    "calibrate": "thresher.calibration.arrays",
    "cancellation": "thresher.evaluate.cancellation",
    "check_audit": "thresher.auditing.readable",
    "check_model": "thresher.model.load",
    "clean": "thresher.calibration.act",
    "clean_run": "thresher.results.clean",
    "compare": "thresher.results.compare",
    "compare_runs": "thresher.results.compare",
    "detect": "thresher.detectors.arrays",
    "explain": "thresher.results.explain",
    "influence": "thresher.influences.compute",
    "noise_detection_auc": "thresher.evaluate.detection",
    "noise_detection_rate": "thresher.evaluate.detection",
    "open": "thresher.api",  # not in __all__: a star would hide Python's own
    "plan_audit": "thresher.auditing.plan",
    "read_checkpoints": "thresher.model.checkpoints",
    "retrain_on": "thresher.auditing.retrain",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # pyproject.toml says it, and what was installed remembers it
        return import_module("importlib.metadata").version("thresher")
    if name not in _HOMES:
        raise AttributeError(f"module 'thresher' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
