"""Near copies beside the definition by every pair; contradictions beside a plain loop."""

import string
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters import evidence
from thresher.detectors.duplicates import ALIKE, CHARACTERS, count_votes, find_contradictions, find_copies
from thresher.detectors.evidence import Copies
from thresher.detectors.registry import DETECTORS, detect

SENTENCES = [
    "the quick brown fox jumps over the lazy dog and then sleeps for a long while in the shade of the old oak",
    "a most tedious evening, though the leading man tries hard, and the music is at times almost worth its price",
    "of all the orders that we placed with you this year not a single one arrived on the day that you had named",
]


def runs(text: str) -> set[str]:
    plain = " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split()).ljust(CHARACTERS, "_")
    return {plain[i : i + CHARACTERS] for i in range(len(plain) - CHARACTERS + 1)}


def by_every_pair(texts: list[str]) -> list[int]:
    """Groups by the definition: linked where the Jaccard similarity is large enough, and along links."""
    sets, group = [runs(text) for text in texts], list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= ALIKE:
                old, new = max(group[i], group[j]), min(group[i], group[j])
                group = [new if g == old else g for g in group]
    return group


def test_copies_are_those_of_the_definition() -> None:
    rng, texts = np.random.default_rng(0), []
    for sentence in SENTENCES * 20:
        letters = list(sentence)
        for place in rng.integers(len(letters), size=rng.integers(4)):
            letters[place] = rng.choice(list(string.ascii_lowercase))
        texts.append("".join(letters))
    found, expected = find_copies([(text,) for text in texts]).tolist(), by_every_pair(texts)
    assert len(set(expected)) > len(SENTENCES)  # some are changed too much
    together = np.equal.outer(expected, expected)
    assert (np.equal.outer(found, found) <= together).all()
    assert (np.equal.outer(found, found) == together).mean() > 0.99  # a pair at the limit may go unseen


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("I do like it", "I DO like... it!", True),
        ("I do like it", "I do not like it", False),
        ("Whom did they say he saw?", "Who did they say he saw?", False),
        ("ok", "OK.", True),
        ("ok", "no", False),
        ("...", "!!!", False),
        ("", "", False),
        ("Größe", "GRÖSSE", True),
    ],
)
def test_what_is_a_copy(one: str, other: str, same: bool) -> None:
    assert find_copies([(one,), ("something else entirely",), (other,)]).tolist() == [0, 1, 0 if same else 2]


def test_a_pair_of_texts_is_a_copy_as_a_whole() -> None:
    rows = [("a b c d e f", "g h i j"), ("g h i j", "a b c d e f"), ("A b c d e f", "g h i j.")]
    assert find_copies(rows).tolist() == [0, 1, 0]


def test_of_a_pair_each_text_must_be_a_copy() -> None:
    long = " ".join(SENTENCES)
    rows = [(long, "It rained."), (long, "Nobody came."), (long, "it rained"), ("", "it rained")]
    assert find_copies(rows).tolist() == [0, 1, 0, 3]
    assert find_copies([("", ""), ("?", "!")]).tolist() == [0, 1]


ROW = st.tuples(st.integers(0, 4), st.integers(0, 2))


@given(st.lists(ROW, min_size=1, max_size=12), st.lists(ROW, max_size=4))
def test_votes_are_those_of_a_loop(rows: list[Any], queries: list[Any]) -> None:
    same, query_group = (np.array([number for number, _ in side], dtype=np.int64) for side in (rows, queries))
    group = same % 3  # lines of one row are of one group
    labels, query_labels = (np.array([label for _, label in side], dtype=np.int64) for side in (rows, queries))
    agree, differ = count_votes(Copies(group, query_group), labels, query_labels, same)
    for place, label in enumerate(labels):
        there = np.flatnonzero((group == group[place]) & (same != same[place]))
        others = [(1, labels[other]) for other in there]
        others += [(3, said) for number, said in queries if number == group[place]]
        assert agree[place] == sum(weight for weight, said in others if said == label)
        assert differ[place] == sum(weight for weight, said in others if said != label)


def test_copies_that_differ_make_a_row_suspicious_and_none_says_nothing() -> None:
    made = replace(evidence(5, queries=2), labels=np.array([0, 0, 1, 2, 1]), query_labels=np.array([1, 0]))
    made = replace(made, copies=Copies(np.array([0, 0, 0, 3, 4]), np.array([4, 9])))
    score = detect(made, [DETECTORS["copies"]])["copies"]
    assert score[2] < score[0] == score[1] == score[3] == 0 < score[4]


def test_no_rows() -> None:
    assert find_copies([]).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("xyz")), max_size=30))
def test_a_contradiction_is_a_copy_with_another_label(rows: list[tuple[int, str]]) -> None:
    keys = [key for key, _ in rows]
    copies = np.array([keys.index(key) for key in keys], dtype=np.int64)
    expected = [any(k == key and other != label for k, other in rows) for key, label in rows]
    assert find_contradictions(copies, [label for _, label in rows]).tolist() == expected
