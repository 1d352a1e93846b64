"""Confident learning (Northcutt, Jiang & Chuang 2021), by the library of its authors."""

from __future__ import annotations

from typing import Any

from thresher.arrays import Floats
from thresher.detectors.evidence import Evidence
from thresher.detectors.probe import held_out


def confident(evidence: Evidence) -> Floats:
    """cleanlab's label quality: self-confidence, adjusted by what the probe gives each class's rows on average, [n].

    Of the out-of-fold probabilities, the mean over three splits; in 0..1.
    """
    from cleanlab.rank import get_label_quality_scores

    quality: Any = get_label_quality_scores(
        evidence.labels, held_out(evidence)[:, : len(evidence.labels)].mean(0), adjust_pred_probs=True
    )
    return quality
