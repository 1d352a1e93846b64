"""Thresher finds the training rows that hurt a fine-tuned language model.

One sign everywhere: larger = helpful, lower = detrimental.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thresher.config import AuditConfig
    from thresher.errors import ThresherError
    from thresher.evaluate.cancellation import cancellation
    from thresher.evaluate.detection import noise_detection_auc, noise_detection_rate
    from thresher.influences.compute import influence
    from thresher.layer_view import Explanation, explain
    from thresher.model.checkpoints import Checkpoint, read_checkpoints
    from thresher.model.keeper import CheckpointKeeper
    from thresher.pipeline import AuditResult, audit
    from thresher.scores.aggregate import aggregate

    __version__: str

__all__ = [
    "AuditConfig",
    "AuditResult",
    "Checkpoint",
    "CheckpointKeeper",
    "Explanation",
    "ThresherError",
    "aggregate",
    "audit",
    "cancellation",
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
    "Checkpoint": "thresher.model.checkpoints",
    "CheckpointKeeper": "thresher.model.keeper",
    "Explanation": "thresher.layer_view",
    "ThresherError": "thresher.errors",
    "aggregate": "thresher.scores.aggregate",
    "audit": "thresher.pipeline",
    "cancellation": "thresher.evaluate.cancellation",
    "explain": "thresher.layer_view",
    "influence": "thresher.influences.compute",
    "noise_detection_auc": "thresher.evaluate.detection",
    "noise_detection_rate": "thresher.evaluate.detection",
    "read_checkpoints": "thresher.model.checkpoints",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # pyproject.toml says it, and what was installed remembers it
        return import_module("importlib.metadata").version("thresher")
    if name not in _HOMES:
        raise AttributeError(f"module 'thresher' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
