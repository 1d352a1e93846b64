"""What the model knows of the task: counted by hand, and the sign test against a sum of binomial terms."""

from __future__ import annotations

from io import StringIO
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from summaries import made_up, training
from thresher.auditing.doubts import doubt_of
from thresher.auditing.summary import knowledge_entry
from thresher.evaluate.knowledge import SURE, Knowledge, better, measure_knowledge
from thresher.report.knowledge import show_knowledge
from thresher.terminal import PlainConsole

NAMES = ["a", "b", "c"]


def known(predicted: list[int], labels: list[int], probe: list[int] | None = None) -> Knowledge:
    scores = np.eye(3)
    return measure_knowledge(scores[predicted], np.array(labels), None if probe is None else scores[probe], NAMES)


def test_everything_is_counted() -> None:
    found = known([0, 0, 1, 1, 2, 0], [0, 0, 0, 1, 2, 2], probe=[0, 0, 0, 1, 1, 0])
    assert (found.queries, found.right, found.most_frequent, found.probe) == (6, 4, 3, 4)
    assert [(one.name, one.right, one.queries) for one in found.classes] == [("a", 2, 3), ("b", 1, 1), ("c", 1, 2)]
    assert [(one.name, one.predicted, one.queries) for one in found.confused] == [("a", "b", 1), ("c", "a", 1)]


def test_who_answers_one_class_has_not_learned_and_who_knows_has() -> None:
    labels = [0, 1] * 50
    nothing, everything = known([0] * 100, labels), known(labels, labels)
    assert not nothing.learned and everything.learned
    assert doubt_of(everything) is None
    assert "50 of 100 clean queries right" in (doubt_of(nothing) or "") and "most frequent class 50" in (
        doubt_of(nothing) or ""
    )


def test_a_little_more_than_one_class_is_chance() -> None:
    labels = [0] * 52 + [1] * 48
    predicted = [0] * 52 + [1] * 4 + [0] * 44  # four right that one class misses: p = 1 / 16
    assert not known(predicted, labels).learned
    predicted[56] = 1  # five: p = 1 / 32
    assert known(predicted, labels).learned


def test_a_model_behind_the_probe_is_not_listened_to() -> None:
    labels = [0, 1] * 50
    predicted = labels[:80] + [1 - label for label in labels[80:]]
    found = known(predicted, labels, probe=labels)
    assert found.better_than_one_class and found.behind_probe and found.only_probe_knows and not found.learned
    assert "as it came 100" in (doubt_of(found) or "") and "frozen features" in (doubt_of(found) or "")
    assert "so rows are ranked" not in (doubt_of(found, chosen=False) or "")  # by the score that the user named
    neither = known([0] * 100, labels, probe=[0] * 100)
    assert not neither.only_probe_knows and "little better than a guess" in (doubt_of(neither) or "")


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_the_sign_test_is_a_sum_of_binomial_terms(pairs: list[tuple[bool, bool]]) -> None:
    right, other = (np.array(side) for side in zip(*pairs, strict=True))
    wins, losses = (right & ~other).sum(), (other & ~right).sum()
    both = int(wins + losses)
    chance = sum(comb(both, count) for count in range(int(wins), both + 1)) / 2**both
    assert better(right, other) == (wins > losses and chance <= SURE)
    assert not (better(right, other) and better(other, right))


@pytest.mark.parametrize("probe", [None, [0, 1, 2] * 20])
def test_the_console_says_what_summary_json_says(probe: list[int] | None) -> None:
    labels = [0, 1, 2] * 20
    found = known([0, 1, 1] * 20, labels, probe)
    entry = knowledge_entry(found, doubt_of(found))
    console = PlainConsole(width=400, record=True, file=StringIO())
    console.print(show_knowledge(entry, made_up(knowledge=entry, training=training(0.003))))
    said = console.export_text()
    assert "gets 40 of 60 clean queries right after training at a rate of 0.003" in said
    assert ("as it came 60" in said) == (probe is not None)
    assert "c as b (20)" in said and "c 0 of 20" in said
    assert entry.learned == (probe is None)
    assert (entry.doubt or "") in said
