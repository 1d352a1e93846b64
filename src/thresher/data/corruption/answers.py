"""Spoiled answers: swapped between rows, truncated or shuffled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from thresher.arrays import Flags
from thresher.data.corruption.draw import WORD
from thresher.errors import ConfigError
from thresher.registry import Registry

SWAP = "swap"
Spoil = Callable[[str, np.random.Generator], str]
"""Gives the spoiled text, or nothing where it cannot be spoiled so."""


def plant_texts(texts: Sequence[str], share: float, kind: str, rng: np.random.Generator) -> tuple[list[str], Flags]:
    """Spoil ``share`` of the texts, chosen uniformly among those that can be spoiled.

    ``swap`` exchanges texts between the chosen rows, so that none keeps an equal one; ``truncate`` keeps the first
    third of a text's words (of one word, of its letters); ``shuffle`` puts the words in another order. Returns the
    texts afterwards and which rows were changed, [n]. Raises :class:`ConfigError` where too few can be changed.
    """
    count = round(share * len(texts))
    order: list[int] = rng.permutation(len(texts)).tolist()
    if kind == SWAP:
        changed = _exchange(texts, _vary(texts, order, count), rng)
    else:
        changed = _spoil(texts, order, count, lambda text: SPOILED_ANSWERS[kind](text, rng))
    if len(changed) < count:
        raise ConfigError(f"--plant {share}: only {len(changed)} answers can be changed by {kind}, not {count}.")
    planted = np.zeros(len(texts), dtype=bool)
    planted[list(changed)] = True
    return [changed.get(row, text) for row, text in enumerate(texts)], planted


def swapped_at(texts: Sequence[str], rows: Sequence[int], rng: np.random.Generator) -> list[str]:
    """The texts, each of the named rows with that of another row instead, uniformly chosen among those that differ.

    Raises :class:`ConfigError` where all texts are equal.
    """
    bare = [text.strip() for text in texts]
    if len(set(bare)) < 2:
        raise ConfigError("--canary-kind swap: all rows have the same answer; name a --detector.")
    swapped = list(texts)
    for row in rows:
        other = row
        while bare[other] == bare[row]:
            other = int(rng.integers(len(texts)))
        swapped[row] = texts[other]
    return swapped


def _spoil(texts: Sequence[str], order: Sequence[int], count: int, spoil: Callable[[str], str]) -> dict[int, str]:
    """New texts of the first ``count`` rows in ``order`` that can be spoiled."""
    changed: dict[int, str] = {}
    for row in order:
        if len(changed) < count and (text := spoil(texts[row])):
            changed[row] = text
    return changed


def _vary(texts: Sequence[str], order: Sequence[int], count: int) -> list[int]:
    """The first ``count`` rows in ``order``, passing over a text that fills half of the places already."""
    taken: Counter[str] = Counter()
    rows: list[int] = []
    for row in order:
        text = texts[row].strip()
        if len(rows) < count and taken[text] < count // 2:
            taken[text] += 1
            rows.append(row)
    return rows


def _exchange(texts: Sequence[str], rows: Sequence[int], rng: np.random.Generator) -> dict[int, str]:
    """New texts of the rows, exchanged among them; empty where one text makes up more than half of them."""
    groups: dict[str, list[int]] = {}
    shuffled: list[int] = rng.permutation(np.array(rows, dtype=np.int64)).tolist()
    for row in shuffled:
        groups.setdefault(texts[row].strip(), []).append(row)
    # Equal texts side by side; moved on by the size of the largest group, no text comes to lie within its own.
    order = [row for group in groups.values() for row in group]
    step = max((len(group) for group in groups.values()), default=0)
    if 2 * step > len(order):
        return {}
    return {row: texts[order[(place + step) % len(order)]] for place, row in enumerate(order)}


def _truncate(text: str, _: np.random.Generator) -> str:
    words = list(WORD.finditer(text))
    if len(words) > 1:
        return text[: words[max(1, len(words) // 3) - 1].end()]
    word = text.strip()
    return word[: max(1, len(word) // 3)] if len(word) > 1 else ""


def _shuffle(text: str, rng: np.random.Generator) -> str:
    words = WORD.findall(text)
    if len(set(words)) < 2:
        return ""
    moved = words
    while moved == words:
        moved = [words[place] for place in rng.permutation(len(words))]
    replaced = iter(moved)
    return WORD.sub(lambda _: next(replaced), text)


SPOILED_ANSWERS = Registry[Spoil](
    "kind of spoiled answer", "thresher.spoiled_answers", {"truncate": _truncate, "shuffle": _shuffle}
)
