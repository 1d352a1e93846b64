"""Rows whose text is no text of the kind that the clean queries are: empty ones, and ones in another language.

Their labels may be right, so canaries with wrong labels cannot speak for them; what is wrong with them can be read off.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from thresher.arrays import Flags, Indices

Texts = Sequence[tuple[str, ...]]
Problem = Literal["", "empty", "foreign"]

PLACEHOLDERS = frozenset({"n/a", "#n/a", "na", "nan", "nil", "none", "null", "<na>"})
CHANCE = 0.05  # of flagging any row, if all were like the queries
CERTAIN = 99.0  # odds
FEW = 0.1  # of a foreign row's words are known
MOST = 0.5  # of the rows may be foreign; above, the queries are

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_SOMETHING = re.compile(r"\w")


def text_problems(rows: Texts, queries: Texts) -> npt.NDArray[np.object_]:
    """What is wrong with the text of every row, [n]: "empty", "foreign", or "" for nothing.

    Empty: no letter or digit, or what exports write instead, in every text of the row; unless a query is so, too.
    Foreign: fewer of its different words are in any query than chance allows. See :func:`_foreign`.
    """
    found = np.full(len(rows), "", dtype=object)
    if rows and queries:
        found[_foreign(rows, queries)] = "foreign"
        if not any(map(_empty, queries)):
            found[[_empty(row) for row in rows]] = "empty"
    return found


def _empty(texts: tuple[str, ...]) -> bool:
    return all(not _SOMETHING.search(text) or text.strip().casefold() in PLACEHOLDERS for text in texts)


def _foreign(rows: Texts, queries: Texts) -> Flags:
    """Rows whose words the queries do not know, [n].

    A word of a query is one of another query, too, with probability p. Of a row's m different words k are known; it is
    foreign where k / m is at most ``FEW`` and P(K <= k), K ~ Binomial(m, p), below ``CHANCE`` / n and below what it is
    for any query. If there are such rows, their share of known words and their share of the rows tell more: others of
    as few known words are foreign, too, where the odds that they are of these are above ``CERTAIN``. Short texts, and
    a language without spaces, are left alone; and where more than ``MOST`` of the rows would be foreign none is.
    """
    from scipy.stats import binom

    of_queries = list(map(_words, queries))
    vocabulary = Counter(word for words in of_queries for word in words)
    usual_known, usual_words = _count_known(of_queries, vocabulary, 2)
    known, words = _count_known(list(map(_words, rows)), vocabulary, 1)
    if not usual_words.any():
        return np.zeros(len(rows), dtype=bool)
    p = usual_known.sum() / usual_words.sum()
    limit = min(CHANCE / len(rows), float(binom.cdf(usual_known, usual_words, p).min()))
    few = known <= FEW * words
    foreign: Flags = few & (binom.cdf(known, words, p) < limit)
    if 0 < foreign.mean() <= MOST:
        theirs = (known[foreign].sum() + 0.5) / (words[foreign].sum() + 1)
        odds = foreign.mean() / (1 - foreign.mean())
        foreign |= few & (odds * binom.pmf(known, words, theirs) > CERTAIN * binom.pmf(known, words, p))
    return foreign & (foreign.mean() <= MOST)


def _count_known(words: Sequence[set[str]], vocabulary: Counter[str], times: int) -> tuple[Indices, Indices]:
    """How many of each row's ``words`` at least so many queries have, and how many it has, [n] each."""
    known = [sum(vocabulary[word] >= times for word in row) for row in words]
    return np.array(known, dtype=np.int64), np.array([len(row) for row in words], dtype=np.int64)


def _words(texts: tuple[str, ...]) -> set[str]:
    return {word.casefold() for text in texts for word in _WORD.findall(text)}
