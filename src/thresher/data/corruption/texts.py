"""Spoiled texts of rows with classes: near copies under another label, empty texts, texts of another language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from thresher.data.corruption.draw import WORD, present
from thresher.data.examples import Examples
from thresher.errors import ConfigError

NOTHING = (".", "-", "n/a")
"""What people and exports write where there is no text."""

_FINNISH = """
ja että hän oli mutta kuin myös niin kun sen ovat joka minä sinä tämä tuo nyt vain vielä sitten kanssa ennen jälkeen
koska jos hyvin paljon vähän aina usein päivä yö talo vesi maa ihminen lapsi nainen mies kaupunki tie vuosi elämä sana
kirja ystävä aika suuri pieni uusi vanha hyvä kaunis tulla mennä nähdä tehdä sanoa ehkä täällä
"""
FINNISH = tuple(_FINNISH.split())


def near_copies(examples: Examples, count: int, rng: np.random.Generator) -> Examples:
    """``count`` rows chosen uniformly become near copies of unchanged rows, with another class than these.

    A copied row is chosen uniformly, none twice as long as there are enough, and the class uniformly among the others
    of the data. In the copy one word (of one text of a pair) is dropped, doubled, or has its case changed. Raises
    :class:`ConfigError` where no row would stay as it is.
    """
    classes, places = present(examples.labels)
    order = rng.permutation(len(examples))
    rows, unchanged = order[:count], order[count:]
    if not len(unchanged):
        raise ConfigError("--plant: a near copy is one of a row that stays as it is, and none would; plant less.")
    copied = np.resize(unchanged, count)
    texts, labels = list(examples.texts), examples.labels.copy()
    for row, other in zip(rows.tolist(), copied.tolist(), strict=True):
        texts[row] = _near_copy(examples.texts[other], examples.texts[row], rng)
    labels[rows] = classes[(places[copied] + rng.integers(1, len(classes), count)) % len(classes)]
    return Examples(texts, labels)


def empty_texts(examples: Examples, count: int, rng: np.random.Generator) -> Examples:
    """``count`` rows chosen uniformly keep their label; their text, or both of a pair, becomes one of ``NOTHING``."""
    return _rewrite(examples, count, rng, lambda text: _other(NOTHING, text.strip(), rng))


def foreign(examples: Examples, count: int, rng: np.random.Generator) -> Examples:
    """``count`` rows chosen uniformly keep their label, and every word becomes one of ``FINNISH``, chosen uniformly."""
    return _rewrite(examples, count, rng, lambda text: WORD.sub(lambda word: _other(FINNISH, word[0], rng), text))


def _rewrite(examples: Examples, count: int, rng: np.random.Generator, spoil: Callable[[str], str]) -> Examples:
    texts = list(examples.texts)
    for row in rng.choice(len(examples), count, replace=False).tolist():
        texts[row] = tuple(spoil(text) for text in texts[row])
    return replace(examples, texts=texts)


def _other(words: Sequence[str], than: str, rng: np.random.Generator) -> str:
    choices = [word for word in words if word != than]
    return choices[rng.integers(len(choices))]


def _near_copy(texts: tuple[str, ...], instead_of: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    copy = texts
    while copy in (texts, instead_of):  # not every change is one: a number has no case, a single word stays
        part = int(rng.integers(len(texts)))
        copy = (*copy[:part], _alter(copy[part], rng), *copy[part + 1 :])
    return copy


def _alter(text: str, rng: np.random.Generator) -> str:
    words = list(WORD.finditer(text))
    word = words[rng.integers(len(words))]
    before, after = text[: word.start()], text[word.end() :]
    change = rng.integers(3)
    if change == 0:
        return before + word[0].swapcase() + after
    if change == 1:
        return f"{before}{word[0]} {word[0]}{after}"
    return (before + after.lstrip()).rstrip() if len(words) > 1 else text
