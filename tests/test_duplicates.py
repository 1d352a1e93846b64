"""Near copies beside the definition by every pair; contradictions beside a plain loop."""

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thresher.detectors.duplicates import ALIKE, CHARACTERS, find_contradictions, find_copies

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


def test_no_rows() -> None:
    assert find_copies([]).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("xyz")), max_size=30))
def test_a_contradiction_is_a_copy_with_another_label(rows: list[tuple[int, str]]) -> None:
    keys = [key for key, _ in rows]
    copies = np.array([keys.index(key) for key in keys], dtype=np.int64)
    expected = [any(k == key and other != label for k, other in rows) for key, label in rows]
    assert find_contradictions(copies, [label for _, label in rows]).tolist() == expected
