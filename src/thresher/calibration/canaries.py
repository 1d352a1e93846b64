"""Canaries: rows that get a wrong label of our own before the training, so that every detector can be judged here.

A canary is wrong in one round only. In every other round the model trains on the row as it was given, so the row itself
is judged there, by a model that never saw the canary. A model that was trained elsewhere cannot learn canaries any
more: then copies of some rows with a wrong label are audited beside the rows, in one round.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from thresher.arrays import Indices
from thresher.config import AuditConfig, CanaryKind
from thresher.data.encode import EncodedRows
from thresher.data.noise.draw import Flags, present
from thresher.data.noise.kinds import Guess
from thresher.errors import ConfigError
from thresher.model.load import Subject
from thresher.tasks.base import Task

AUTO, ALIKE = "auto", "alike"
_SEEDS_APART = 100_000


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


def plan_rounds(
    task: Task, subject: Subject, train: EncodedRows, config: AuditConfig, max_length: int, guess: Guess
) -> tuple[Round, ...]:
    """The rounds of an audit: with canaries where ``--detector auto`` needs them, else one without.

    ``train`` are the encoded rows as given. Raises :class:`ConfigError` where there would be too many canaries.
    """
    every = np.arange(len(train))
    if config.detector != AUTO:
        if config.canary_kind is not None:
            raise ConfigError(f"--canary-kind: --detector {config.detector} plants no canaries; leave it out.")
        return (Round(0, config.seed, train, every, np.zeros(len(train), bool)),)
    kind = canary_kind(task, subject, config)
    sets = canary_rows(len(train), config.canaries, config.rounds, config.seed)
    rng = np.random.default_rng([config.seed, 3])
    guess = cache(guess)

    def spoiled(rows: Indices) -> EncodedRows:
        return task.with_canaries(rows, kind, rng, guess).encode(subject, max_length).rows["train"]

    if kind == ALIKE:
        present(train.classes.numpy())
    if subject.kind == "lora":  # alike ones get their rows and labels when there are features: these only count them
        return tuple(
            Round(
                number,
                config.seed + _SEEDS_APART * number,
                train if kind == ALIKE else spoiled(rows),
                every,
                np.isin(every, rows),
            )
            for number, rows in enumerate(sets)
        )
    copied = np.concatenate(sets)
    rows = np.concatenate([every, copied])
    return (
        Round(0, config.seed, train.joined(spoiled(copied).take(copied)), rows, np.arange(len(rows)) >= len(every)),
    )


def canary_kind(task: Task, subject: Subject, config: AuditConfig) -> CanaryKind:
    """The kind of canaries to plant. Raises :class:`ConfigError` for one that cannot be."""
    able: list[CanaryKind] = [kind for kind in task.canary_kinds if kind != ALIKE or subject.kind == "lora"]
    kind = config.canary_kind or able[0]
    if kind == ALIKE and kind in task.canary_kinds and kind not in able:
        raise ConfigError("--canary-kind alike: it takes features of the model as it came, and this one is fine-tuned.")
    if kind not in able:
        raise ConfigError(f"--canary-kind {kind}: --task {config.task} knows {', '.join(able)}; choose one.")
    return kind


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
