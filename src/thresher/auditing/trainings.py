"""The rounds of an audit: how often it trains, and which canaries of which kind each training has."""

from __future__ import annotations

from functools import cache

import numpy as np

from thresher.arrays import Indices
from thresher.calibration.canaries import ALIKE, AUTO, Round, canary_rows
from thresher.config import AuditConfig, CanaryKind
from thresher.data.corruption.draw import present
from thresher.data.corruption.kinds import Guess
from thresher.data.encode import EncodedRows
from thresher.errors import ConfigError
from thresher.model.load import LoadedModel
from thresher.tasks.base import Task

_SEEDS_APART = 100_000


def plan_rounds(
    task: Task, subject: LoadedModel, train: EncodedRows, config: AuditConfig, max_length: int, guess: Guess
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


def canary_kind(task: Task, subject: LoadedModel, config: AuditConfig) -> CanaryKind:
    """The kind of canaries to plant. Raises :class:`ConfigError` for one that cannot be."""
    able: list[CanaryKind] = [kind for kind in task.canary_kinds if kind != ALIKE or subject.kind == "lora"]
    kind = config.canary_kind or able[0]
    if kind == ALIKE and kind in task.canary_kinds and kind not in able:
        raise ConfigError("--canary-kind alike: it takes features of the model as it came, and this one is fine-tuned.")
    if kind not in able:
        raise ConfigError(f"--canary-kind {kind}: --task {config.task} knows {', '.join(able)}; choose one.")
    return kind
