"""Scores as the rounds of an audit leave them, of which the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from thresher.calibration.candidates import Candidates, ScoredRound, side_by_side
from thresher.scores.names import ScoreName, score_called

CALLED = (
    "tracin/all/mean", "datainf/layers/vote@0.3", "cosine/CL/rank", "detector/loss", "detector/aum", "detector/el2n",
    "detector/probe_frozen", "detector/knn_frozen", "detector/knn_tuned", "detector/noise_frozen",
    "detector/noise_tuned",
)  # fmt: skip
VOTES = [f"tracin/{group}/vote@0.{k}" for group in ("all", "WE", "CL", "1", "2") for k in range(1, 10)]
NAMES = tuple(map(score_called, CALLED))
MANY = (*map(score_called, VOTES), *NAMES[3:])


def simulated(
    seed: int,
    *,
    rows: int = 400,
    errors: float = 0.1,
    classes: int = 2,
    share: float = 0.05,
    rounds: int = 2,
    apart: float = 1.0,
    apart_by_name: dict[str, float] | None = None,
    names: Sequence[str | ScoreName] = NAMES,
) -> tuple[Candidates, Any]:
    """Looks at rows of which ``errors`` have a uniformly drawn wrong label, and which those are, [n].

    A candidate's score is standard normal, and less by ``apart`` where the label is wrong, whoever made it so.
    """
    rng = np.random.default_rng(seed)
    right = rng.integers(0, classes, rows)
    given = right.copy()
    given[: round(errors * rows)] += rng.integers(1, classes, round(errors * rows))
    made = [score_called(str(name)) for name in names]
    away = np.array([(apart_by_name or {}).get(one.name, apart) for one in made])
    order, each = rng.permutation(rows), round(share * rows)
    found: list[ScoredRound] = []
    for number in range(rounds):
        canary = np.isin(np.arange(rows), order[number * each : (number + 1) * each])
        label = (given + canary * rng.integers(1, classes, rows)) % classes
        scores = rng.normal(size=(rows, len(made))) - away * (label != right)[:, None]
        found.append(ScoredRound(np.arange(rows), canary, dict(zip(made, scores.T, strict=True))))
    return side_by_side(found), given % classes != right
