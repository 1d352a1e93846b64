"""Canaries that are wrong in the way in which the rows' own errors are.

What finds errors that hit all rows alike misses those that follow a pattern, and the other way round; so canaries can
only choose what finds the user's errors if they are like them. A probe on features of the model as it came tells from
the clean queries by which law labels go wrong (:mod:`thresher.detectors.label_noise`). The class of a canary and its
wrong label are drawn by that law, and any row of the class may be one: rows whose label is likely right are the easy
ones, and canaries in them are found more easily than the rows' own errors, which makes these look rare. Some are drawn
by errors that hit all classes alike, for what few queries tell of the law is uncertain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from thresher.arrays import Floats, Indices
from thresher.calibration.canaries import Round
from thresher.data.corruption.draw import draw_rows
from thresher.data.encode import EncodedRows
from thresher.detectors.error_law import even_law
from thresher.detectors.label_noise import LabelNoise

EVENLY = 0.25
"""Share of the canaries that are drawn by errors which hit all classes alike."""


def draw_alike(
    noise: LabelNoise, labels: Indices, counts: Sequence[int], seed: int, evenly: float = EVENLY
) -> list[tuple[Indices, Indices]]:
    """Canaries of each round.

    Args:
        noise: What was learned of the n rows.
        labels: The rows' classes as given, [n].
        counts: How many canaries each round has.
        seed: Fixes what is drawn.
        evenly: Share of the canaries that are drawn by the even law; 1 where queries tell no law.

    Returns:
        For each round rows, sorted, and their wrong labels; no row is in two rounds.
    """
    rng = np.random.default_rng([seed, 8])
    law = _law(noise, labels, evenly)
    often = law.sum(axis=1)[labels]
    rows = draw_rows(often.clip(np.finfo(float).tiny), sum(counts), rng)
    chances = law[labels[rows]] / law[labels[rows]].sum(axis=1, keepdims=True)
    wrong = (chances.cumsum(axis=1) < rng.random((len(rows), 1))).sum(axis=1).clip(0, len(law) - 1)
    found: list[tuple[Indices, Indices]] = []
    for part in np.split(np.arange(len(rows)), np.cumsum(counts)[:-1]):
        order = part[np.argsort(rows[part])]
        found.append((rows[order], wrong[order]))
    return found


def with_canaries(rounds: Sequence[Round], train: EncodedRows, drawn: Sequence[tuple[Indices, Indices]]) -> list[Round]:
    """The rounds, their rows ``train`` but for the canaries ``drawn`` for each."""
    found: list[Round] = []
    for one, (rows, wrong) in zip(rounds, drawn, strict=True):
        labels = train.classes.numpy().copy()
        labels[rows] = wrong
        found.append(replace(one, train=train.relabelled(labels), wrong=np.isin(one.rows, rows)))
    return found


def _law(noise: LabelNoise, labels: Indices, evenly: float) -> Floats:
    """How many of a class's rows get which other label, [C, C], 0 on the diagonal and for labels that no row has."""
    law = noise.law.transition
    count = len(law)
    even = even_law(max(float(noise.wrong.mean()), 1 / len(labels)), count)
    for errors in (law, even):
        np.fill_diagonal(errors, 0)
        errors[:, np.setdiff1d(np.arange(count), labels)] = 0
    share = np.bincount(labels, minlength=count) / len(labels)
    each = [errors / max(float(share @ errors.sum(axis=1)), np.finfo(float).tiny) for errors in (law, even)]
    return (1 - evenly) * each[0] + evenly * each[1]
