"""What other scores are held against: chance, and knowing the answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from thresher.arrays import Floats
from thresher.detectors.evidence import Evidence


def uniform(evidence: Evidence) -> Floats:
    """Uniform noise in [0, 1) by the seed, [n]."""
    return np.random.default_rng(evidence.seed).random(len(evidence.labels))


def oracle(planted: Any) -> Floats:
    """-1 for a row that was planted, 0 for any other, [n]; ``planted`` [n] bool. For evaluation alone."""
    return -np.asarray(planted, dtype=np.float64)
