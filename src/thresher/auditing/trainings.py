"""The rounds of an audit: how often it trains, and which canaries of which kind each training has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from thresher.calibration.canaries import ALIKE, AUTO, Round, canary_rows
from thresher.config import AuditConfig, CanaryKind
from thresher.data.corruption.draw import present
from thresher.data.corruption.kinds import Guess
from thresher.data.encode import EncodedRows
from thresher.errors import ConfigError
from thresher.model.load import LoadedModel
from thresher.tasks.base import Described, Task

_SEEDS_APART = 100_000


def draw_canaries(task: Task, subject: LoadedModel, config: AuditConfig, guess: Guess) -> tuple[Described, ...]:
    """The canaries of each round, as they are trained on; of ``alike`` ones, drawn when there are features, none.

    Copies that a model trained elsewhere never learned are all in one round. Raises :class:`ConfigError` where there
    would be too many.
    """
    kind = canary_kind(task, subject, config)
    if config.detector != AUTO or kind == ALIKE:
        return ()
    sets = canary_rows(len(task.texts("train")), config.canaries, config.rounds, config.seed)
    rng = np.random.default_rng([config.seed, 3])
    guess = cache(guess)
    found: list[Described] = []
    for rows in sets if subject.kind == "lora" else [np.concatenate(sets)]:
        spoiled = task.with_canaries(rows, kind, rng, guess)
        found.append({row: spoiled.describe("train", row) for row in rows.tolist()})
    return tuple(found)


def plan_rounds(
    task: Task,
    subject: LoadedModel,
    train: EncodedRows,
    config: AuditConfig,
    max_length: int,
    canaries: Sequence[Described],
) -> tuple[Round, ...]:
    """The rounds of an audit: with canaries where ``--detector auto`` needs them, else one without.

    ``train`` are the encoded rows as given, and ``canaries`` those of :func:`draw_canaries`. Raises
    :class:`ConfigError` where there would be too many.
    """
    every = np.arange(len(train))
    if config.detector != AUTO:
        if config.canary_kind is not None:
            raise ConfigError(f"--canary-kind: --detector {config.detector} plants no canaries; leave it out.")
        return (Round(0, config.seed, train, every, np.zeros(len(train), bool)),)

    def spoiled(number: int) -> EncodedRows:
        return task.with_rows(canaries[number]).encode(subject, max_length).rows["train"]

    if canary_kind(task, subject, config) == ALIKE:  # they get rows and labels later: these only count them
        present(train.classes.numpy())
        trained_on = [train] * config.rounds
        sets = canary_rows(len(train), config.canaries, config.rounds, config.seed)
    else:
        trained_on = [spoiled(number) for number in range(len(canaries))]
        sets = [np.array(list(one)) for one in canaries]
    if subject.kind == "lora":
        return tuple(
            Round(number, config.seed + _SEEDS_APART * number, encoded, every, np.isin(every, rows))
            for number, (encoded, rows) in enumerate(zip(trained_on, sets, strict=True))
        )
    [encoded], [copied] = trained_on, sets
    rows = np.concatenate([every, copied])
    return (Round(0, config.seed, train.joined(encoded.take(copied)), rows, np.arange(len(rows)) >= len(every)),)


def canary_kind(task: Task, subject: LoadedModel, config: AuditConfig) -> CanaryKind:
    """The kind of canaries to plant. Raises :class:`ConfigError` for one that cannot be."""
    able: list[CanaryKind] = [kind for kind in task.canary_kinds if kind != ALIKE or subject.kind == "lora"]
    kind = config.canary_kind or able[0]
    if kind == ALIKE and kind in task.canary_kinds and kind not in able:
        raise ConfigError("--canary-kind alike: it takes features of the model as it came, and this one is fine-tuned.")
    if kind not in able:
        raise ConfigError(f"--canary-kind {kind}: --task {config.task} knows {', '.join(able)}; choose one.")
    return kind
