"""Texts that are none, or in another language than the clean queries: among real ones, and one by one."""

from __future__ import annotations

import numpy as np
import pytest

from thresher.data.corruption.texts import empty_texts, foreign
from thresher.data.examples import Examples
from thresher.data.packaged import critic_quotes
from thresher.detectors.texts import text_problems

QUERIES = [
    ("The film is a good one and the end of it is not what you would think",),
    ("It is not the worst of the films that he made in the end",),
    ("You would think that a film of this kind is made to be seen by all",),
    ("He made what is one of the good films of this year, and it's seen by few",),
]


def problems(*texts: str) -> list[str]:
    return text_problems([(text,) for text in texts], QUERIES).tolist()


@pytest.mark.parametrize("text", ["", " ", ".", "...", "-", "n/a", " N/A ", "NULL", "?!"])
def test_no_text_is_empty(text: str) -> None:
    assert problems(text, QUERIES[0][0]) == ["empty", ""]


@pytest.mark.parametrize("text", ["no", "42", "12 + 30 = 42", "None of it", "é", "好", "an unheard-of turkey"])
def test_short_texts_are_texts(text: str) -> None:
    assert problems(text) == [""]


def test_a_pair_is_empty_where_both_are() -> None:
    pairs = [(".", "-"), (".", "the film"), ("the film", "")]
    assert text_problems(pairs, [*zip(*QUERIES[:2], strict=True)]).tolist() == ["empty", "", ""]


def test_what_queries_look_like_is_no_problem() -> None:
    assert text_problems([("n/a",), ("",)], [*QUERIES, ("-",)]).tolist() == ["", ""]


def test_another_language_is_foreign() -> None:
    spanish = "Una película divertida, visualmente espectacular y muy entretenida que bien vale la pena aprovechar"
    assert problems(spanish, "You would think the film is one of the worst that he made") == ["foreign", ""]
    assert problems("Ein guter Film") == [""]  # three words may be chance


def test_where_most_rows_are_foreign_it_is_the_queries_that_are() -> None:
    spanish = ("Una película divertida, visualmente espectacular y muy entretenida que bien vale la pena",)
    assert text_problems([spanish] * 3 + QUERIES[:2], QUERIES).tolist() == [""] * 5
    assert text_problems([spanish] * 2 + QUERIES[:2], QUERIES).tolist() == ["foreign"] * 2 + [""] * 2


@pytest.mark.parametrize("queries", [[], [("",)], [("一部好电影",), ("这部电影不好",)], [("42",), ("17",)]])
def test_queries_without_words_to_know_find_nothing_foreign(queries: list[tuple[str, ...]]) -> None:
    rows = [("Una película divertida, visualmente espectacular y muy entretenida",), ("all right",)]
    assert text_problems(rows, queries).tolist() == ["", ""]


def test_no_rows_are_no_problem() -> None:
    assert text_problems([], QUERIES).tolist() == []


@pytest.mark.parametrize(("share", "long_enough"), [(0.02, 0.3), (0.2, 0.6)])
def test_among_critics_quotes_they_are_found_and_hardly_anything_else(share: float, long_enough: float) -> None:
    """Many of a kind make one another out: fewer words are enough."""
    quotes = critic_quotes(1000, 200, 0, seed=1)
    texts, queries = ([(str(row["text"]),) for row in part.records] for part in (quotes.train, quotes.validation))
    train = Examples(texts, np.zeros(1000, dtype=np.int64))
    for kind, spoil, found in (("empty", empty_texts, 1.0), ("foreign", foreign, long_enough)):
        spoiled = spoil(train, round(share * 1000), np.random.default_rng(0)).texts
        planted = np.array([old != new for old, new in zip(texts, spoiled, strict=True)])
        said = text_problems(spoiled, queries)
        assert (said[planted] == kind).mean() >= found
        assert (said[~planted] == kind).mean() <= 0.01
