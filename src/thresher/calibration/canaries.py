"""Canaries: rows that get a wrong label of our own before the training, so that every detector can be judged here.

A canary is wrong in one round only. In every other round the model trains on the row as it was given, so the row itself
is judged there, by a model that never saw the canary. A model that was trained elsewhere cannot learn canaries any
more: then copies of some rows with a wrong label are audited beside the rows, in one round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.arrays import Flags, Indices
from thresher.data.encode import EncodedRows
from thresher.errors import ConfigError

AUTO, ALIKE = "auto", "alike"


@dataclass(frozen=True)
class Round:
    """One training, or look at what was trained, and the rows as it saw them.

    ``train`` are N' encoded rows, of which ``rows`` [N'] says which rows of the training file they are and ``wrong``
    [N'] which of them are canaries. ``seed`` fixes order and dropout.
    """

    number: int
    seed: int
    train: EncodedRows
    rows: Indices
    wrong: Flags


def canary_rows(count: int, share: float, rounds: int, seed: int) -> list[Indices]:
    """For each round which of ``count`` rows are canaries: round(share count), at least two, and none of them twice.

    Raises :class:`ConfigError` where that is more than half of the rows.
    """
    each = max(2, round(share * count))
    if rounds * each > count / 2:
        raise ConfigError(
            f"--canaries {share:g} in --rounds {rounds}: {rounds * each} of {count} rows would be canaries, more than "
            "half; use fewer, or name a --detector, such as loss."
        )
    order = np.random.default_rng([seed, 2]).permutation(count)
    return [np.sort(order[number * each : (number + 1) * each]) for number in range(rounds)]
